"""Recipes: every setting of a training run, as plain values that can be read and overridden."""

import re
from dataclasses import dataclass, field, fields, replace

from vit_tf.checks import check_choice, check_int, check_number, check_valid, shown, suggestion
from vit_tf.training.lora import PROJECTIONS
from vit_tf.training.resolution import parse_resolutions


def setting(default, explanation, choices=None):
    return field(default=default, metadata={"help": explanation, "choices": choices})


@dataclass(frozen=True)
class Recipe:
    """One run. Each field is an option of the training scripts, such as --learning-rate.

    Raises:
        ValueError: a value is out of range, or two do not fit each other.
    """

    # How long
    epochs: int | None = setting(10, "passes over the training images; none: until --minutes are over")
    minutes: float | None = setting(None, "the run ends when these are over, if its epochs do not end it")
    monitor: str = setting(
        "accuracy",
        "of validation, says which epoch's weights are the best (mean average precision in the place of "
        "accuracy for several labels per image); loss is less noisy where images are few",
        ("accuracy", "loss"),
    )
    patience: int | None = setting(None, "epochs without better weights that end the run")
    checkpoint_minutes: float = setting(10.0, "the state is saved every epoch, and as often as this")
    progressive_resizing: str = setting(
        "none",
        "shares of the model's image size to train at, in turn for equal parts of the run, such as "
        "0.5,0.75,1; none: its own size all the time",
    )
    # Optimizer
    optimizer: str = setting("adamw", "of Keras", ("adamw", "sgd", "muon"))
    learning_rate: float = setting(1e-4, "the peak")
    schedule: str = setting("cosine", "of the learning rate", ("cosine", "step", "constant"))
    warmup: float = setting(0.1, "share of the run in which the rate rises from 0")
    step_decay: float = setting(0.9, "the factor an epoch of --schedule step")
    weight_decay: float = setting(0.05, "decoupled, of kernels alone")
    layer_decay: float = setting(1.0, "factor on the learning rate for each block further from the head")
    momentum: float = setting(0.9, "of SGD")
    clip_norm: float | None = setting(None, "largest norm of all gradients together")
    batch_size: int = setting(32, "images")
    accumulation_steps: int = setting(1, "batches whose gradients are averaged for one step of the optimizer")
    ema: float | None = setting(None, "momentum of averaged weights, such as 0.999, which are then validated")
    # What is trained
    freeze: str = setting(
        "none",
        "what stays as it is: none, backbone, blocks:K (the first K, and all before), all-but-attention",
    )
    lora_rank: int = setting(0, "rank of LoRA's matrices, everything else but the head stays; 0: no LoRA")
    lora_alpha: float | None = setting(None, "LoRA's updates are multiplied by alpha / rank; none: the rank")
    lora_targets: str = setting("qkv,projection", "which matrices: of qkv, projection, fc1, fc2")
    # Regularisation
    drop_path_rate: float = setting(0.0, "chance that the last block is skipped for an image")
    dropout_rate: float = setting(0.0, "of attention's and the MLP's outputs")
    label_smoothing: float = setting(0.0, "share of each label that goes to all classes")
    class_weights: str = setting(
        "none",
        "balanced: rare classes count more; where images have several labels, the images with a class count "
        "for it as much as those without",
        ("none", "balanced"),
    )
    # Augmentation
    crop: str = setting(
        "resized",
        "resized: a random part at a random size; shift: by a sixteenth of the side; affine: rotated and "
        "zoomed a little (both come last, on whole batches); none: as in the evaluation",
        ("resized", "pad", "affine", "none"),
    )
    crop_scale: float = setting(0.35, "the smallest share of an image's area that --crop resized takes")
    flip: bool = setting(True, "half of the images are mirrored")
    randaugment: float = setting(0.0, "magnitude of RandAugment, up to 10; 0: none")
    random_erasing: float = setting(0.0, "chance that a rectangle is erased")
    mixup: float = setting(0.0, "alpha of MixUp; 0: none")
    cutmix: float = setting(0.0, "alpha of CutMix; 0: none")
    # Evaluation
    flip_tta: bool = setting(False, "test with the mean of an image's and its mirror image's logits")
    # Machine
    mixed_precision: bool = setting(False, "compute in bfloat16")
    remat: bool = setting(False, "compute activations twice rather than keep them: less memory, more time")
    deterministic: bool = setting(False, "TensorFlow's deterministic operations: equal runs, bit by bit")
    cache: bool = setting(False, "keep decoded images in memory, scaled down to twice what the model takes")
    seed: int = setting(0, "of everything random")

    def __post_init__(self):
        for item in fields(self):
            check(item.name, getattr(self, item.name), item.metadata["choices"])
        if self.epochs is None and self.minutes is None:
            raise ValueError("a run needs an end: give `epochs` or `minutes`")
        if self.lora_rank and self.freeze != "none":
            raise ValueError(
                "LoRA freezes all but its own matrices and the head: set `lora_rank` to 0 or `freeze` to none"
            )
        if not re.fullmatch("none|backbone|all-but-attention|blocks:[0-9]+", self.freeze):
            raise ValueError(
                "`freeze` must be none, backbone, all-but-attention or blocks:K with a number K, got "
                f"{self.freeze!r}"
            )
        parse_resolutions(self.progressive_resizing)
        if not set(self.lora_targets.split(",")) <= set(PROJECTIONS):
            raise ValueError(
                f"`lora_targets` must be some of {','.join(PROJECTIONS)}, got {shown(self.lora_targets)}"
            )


INTERVALS = {  # of numbers; others may be any that are not negative
    "lora_alpha": "(0, inf)",
    "minutes": "(0, inf)",
    "learning_rate": "(0, inf)",
    "clip_norm": "(0, inf)",
    **dict.fromkeys(("warmup", "drop_path_rate", "dropout_rate", "label_smoothing", "momentum"), "[0, 1)"),
    **dict.fromkeys(("step_decay", "layer_decay", "crop_scale"), "(0, 1]"),
    "ema": "(0, 1)",
    "random_erasing": "[0, 1]",
    "randaugment": "[0, 10]",
}
LIMITS = {"seed": (0, 2**32 - 1), "lora_rank": (0,)}  # of ints; others must be positive


def check(name, value, choices):
    """Raises a ValueError that says what the setting `name` may be, unless `value` is that."""
    item = Recipe.__dataclass_fields__[name]
    optional = "None" in str(item.type)
    if choices:
        check_choice(name, value, choices)
    elif item.type in (bool, str):
        expected = "true or false" if item.type is bool else "text"
        check_valid(name, value, isinstance(value, item.type), expected)
    elif "int" in str(item.type):
        check_int(name, value, *LIMITS.get(name, (1,)), optional=optional)
    else:
        check_number(name, value, INTERVALS.get(name, "[0, inf)"), optional)


# Fine-tuning, one recipe a purpose. Rates are those of AdamW at a batch of 32.
RECIPES = {
    # Only the head learns: minutes, and a figure for how good the features are.
    "linear-probe": Recipe(freeze="backbone", learning_rate=1e-2, weight_decay=0.0, epochs=20),
    # Everything learns, the layers near the pixels slowly: BEiT's way (https://arxiv.org/abs/2106.08254).
    "full": Recipe(
        learning_rate=1e-4, layer_decay=0.75, drop_path_rate=0.1, label_smoothing=0.1, clip_norm=1.0
    ),
    # Small matrices beside the frozen ones (https://arxiv.org/abs/2106.09685): less memory, small files.
    "lora": Recipe(lora_rank=8, learning_rate=1e-3, weight_decay=0.0, label_smoothing=0.1, clip_norm=1.0),
    # Some dozens or hundreds of images a class: longer, and with everything against overfitting.
    "small-data": Recipe(
        epochs=40,
        learning_rate=5e-5,
        layer_decay=0.65,
        drop_path_rate=0.1,
        label_smoothing=0.1,
        clip_norm=1.0,
        randaugment=7.0,
        random_erasing=0.25,
        mixup=0.2,
        cutmix=0.5,
        ema=0.99,
        monitor="loss",
        patience=12,
    ),
}


def read_recipe(values):
    """Returns the recipe of a run's config.json, a dict of all its settings.

    Raises:
        ValueError: a setting is unknown or missing, as when another version wrote it, or does not fit.
    """
    known = {item.name for item in fields(Recipe)}
    if set(values) != known:
        differing = ", ".join(sorted(known ^ set(values)))
        raise ValueError(
            f"the run was begun with another version of vit_tf, which has other settings ({differing}): go "
            "on with that version, or start anew"
        )
    return Recipe(**values)


def get_recipe(name, **overrides):
    """Returns the recipe called `name` with some settings replaced.

    Raises:
        ValueError: no recipe or no setting has that name, or a value does not fit.
    """
    if name not in RECIPES:
        raise ValueError(
            f"unknown recipe {name!r}{suggestion(name, RECIPES)}: there are {', '.join(RECIPES)}"
        )
    known = [item.name for item in fields(Recipe)]
    for override in overrides:
        if override not in known:
            raise ValueError(f"unknown setting {override!r}{suggestion(override, known)}")
    return replace(RECIPES[name], **overrides)
