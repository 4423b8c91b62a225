"""Recipes: every setting of a training run, as plain values that can be read and overridden.

The limits of each setting stand here, and `check_setting` applies them for the functions that take a setting
as an argument, too. Nothing here imports Keras.
"""

import re
from dataclasses import dataclass, field, fields, replace

from vit_tf.checks import check_choice, check_int, check_number, check_valid, listing

POSITIVE, NON_NEGATIVE, PROBABILITY = "(0, inf)", "[0, inf)", "[0, 1]"
BELOW_ONE, FACTOR, MOMENTUM = "[0, 1)", "(0, 1]", "(0, 1)"
LORA_TARGETS = ("qkv", "projection", "fc1", "fc2")


def setting(default, explanation, limits=None):
    """Returns a field of `Recipe`.

    Limits are the choices of a str, the interval of a float, and (lowest,) or (lowest, highest) of an int.
    """
    return field(default=default, metadata={"help": explanation, "limits": limits})


@dataclass(frozen=True)
class Recipe:
    """The settings of one run. Each field is an option of `vit-tf train` and `vit-tf finetune`.

    Raises:
        ValueError: a value is out of range, or two values exclude each other.
    """

    # Duration
    epochs: int | None = setting(10, "passes over the training images; none: only --minutes end it", (1,))
    minutes: float | None = setting(None, "duration of the run, if its epochs do not end it before", POSITIVE)
    monitor: str = setting(
        "accuracy",
        "which epoch's weights are the best: by validation accuracy (mean average precision for several "
        "labels per image), by validation loss, which is less noisy with few images, or those of the last",
        ("accuracy", "loss", "last"),
    )
    keep_last: bool = setting(False, "write the last epoch's weights to RUN/last, too, as another model")
    patience: int | None = setting(None, "epochs without better weights that end the run", (1,))
    checkpoint_minutes: float = setting(10.0, "interval of checkpoints within an epoch", NON_NEGATIVE)
    progressive_resizing: str = setting(
        "none",
        "fractions of the model's image size to train at, in turn for equal parts of the run, such as "
        "0.5,0.75,1; none: its full size throughout",
    )
    # Optimizer
    optimizer: str = setting("adamw", "optimizer, as in Keras", ("adamw", "sgd", "muon"))
    learning_rate: float = setting(1e-4, "peak learning rate", POSITIVE)
    schedule: str = setting("cosine", "learning-rate schedule", ("cosine", "constant", "step"))
    warmup: float = setting(0.1, "fraction of the run in which the learning rate rises from 0", BELOW_ONE)
    step_decay: float = setting(0.9, "factor per epoch of --schedule step", FACTOR)
    weight_decay: float = setting(0.05, "decoupled weight decay, of kernels alone", NON_NEGATIVE)
    layer_decay: float = setting(1.0, "factor on the learning rate per block, from the head down", FACTOR)
    momentum: float = setting(0.9, "momentum of SGD", BELOW_ONE)
    clip_norm: float | None = setting(None, "maximum norm of all gradients together", POSITIVE)
    batch_size: int = setting(32, "images per batch", (1,))
    accumulation_steps: int = setting(1, "batches per optimizer step, by the mean of gradients", (1,))
    ema: float | None = setting(
        None,
        "momentum, such as 0.999, of averaged weights, which are validated; the statistics of batch "
        "normalisation are averages already, and stay as they are",
        MOMENTUM,
    )
    # Trained weights
    freeze: str = setting(
        "none",
        "frozen weights: none, backbone, blocks:K (the first K and all before them), all-but-attention",
    )
    lora_rank: int = setting(0, "rank of LoRA, which freezes all other weights but the head; 0: none", (0,))
    lora_alpha: float | None = setting(None, "LoRA scales by alpha / rank; none: alpha = rank", POSITIVE)
    lora_targets: str = setting("qkv,projection", f"layers with LoRA: some of {','.join(LORA_TARGETS)}")
    # Regularisation
    drop_path_rate: float = setting(0.0, "probability that an image skips the last block", BELOW_ONE)
    dropout_rate: float = setting(0.0, "dropout after attention and MLP", BELOW_ONE)
    label_smoothing: float = setting(0.0, "fraction of each label that is spread over all classes", BELOW_ONE)
    class_weights: str = setting(
        "none",
        "balanced: each class has the same total weight; with several labels per image, the images with a "
        "class have the same total weight as those without",
        ("none", "balanced"),
    )
    # Augmentation
    crop: str = setting(
        "resized",
        "resized: a random part at a random size; pad: pad by a sixteenth of the side and crop; affine: "
        "small rotations and zooms (pad and affine run on whole batches); none: as in evaluation",
        ("resized", "pad", "affine", "none"),
    )
    crop_scale: float = setting(0.35, "smallest fraction of the area that --crop resized takes", FACTOR)
    flip: bool = setting(True, "mirror half of the images")
    randaugment: float = setting(0.0, "magnitude of RandAugment, at most 10; 0: none", "[0, 10]")
    random_erasing: float = setting(0.0, "probability that a rectangle is erased", PROBABILITY)
    mixup: float = setting(0.0, "alpha of MixUp; 0: no MixUp", NON_NEGATIVE)
    cutmix: float = setting(0.0, "alpha of CutMix; 0: no CutMix", NON_NEGATIVE)
    # Evaluation
    flip_tta: bool = setting(False, "test with the mean logits of an image and its mirror image")
    # Machine
    mixed_precision: bool | None = setting(
        False,
        "compute in bfloat16; weights and logits stay float32. It is faster on GPUs, TPUs and processors "
        "that multiply bfloat16, where most presets of `train` use it by default",
    )
    remat: bool = setting(False, "recompute activations in the backward pass: less memory, more time")
    deterministic: bool = setting(False, "use TensorFlow's deterministic operations: runs repeat bit by bit")
    cache: bool = setting(False, "keep decoded images in memory, at up to twice the model's image size")
    seed: int = setting(0, "seed of all random numbers", (0, 2**32 - 1))

    def __post_init__(self):
        for item in fields(self):
            check_setting(item.name, getattr(self, item.name))
        if self.epochs is None and self.minutes is None:
            raise ValueError("a run needs an end: give `epochs` or `minutes`")
        if self.lora_rank and self.freeze != "none":
            raise ValueError(
                "LoRA freezes all weights but its own and the head: set `lora_rank` to 0 or `freeze` to none"
            )
        if self.lora_rank and self.keep_last:
            raise ValueError("`keep_last` does not work with LoRA: set `lora_rank` to 0 or leave it out")
        is_valid = re.fullmatch("none|backbone|all-but-attention|blocks:[0-9]+", self.freeze)
        expected = "none, backbone, all-but-attention or blocks:K with a number K"
        check_valid("freeze", self.freeze, is_valid, expected)
        parse_resolutions(self.progressive_resizing)
        is_valid = set(self.lora_targets.split(",")) <= set(LORA_TARGETS)
        check_valid("lora_targets", self.lora_targets, is_valid, f"some of {','.join(LORA_TARGETS)}")


def check_setting(name, value, label=None):
    """Raises a ValueError that says what a setting, called `label` if given, may be, unless it is allowed."""
    item, name = Recipe.__dataclass_fields__[name], label or name
    kind, limits, optional = str(item.type), item.metadata["limits"], "None" in str(item.type)
    if item.type is str and limits:
        check_choice(name, value, limits)
    elif item.type is str:
        check_valid(name, value, isinstance(value, str), "text")
    elif "bool" in kind:
        check_valid(name, value, isinstance(value, bool), "true or false", optional)
    elif "int" in kind:
        check_int(name, value, *limits, optional=optional)
    else:
        check_number(name, value, limits, optional)


def parse_resolutions(text):
    """Returns the fractions in "0.5,0.75,1" as floats; an empty list for "none".

    Raises:
        ValueError: the text is something else, or a fraction is not in (0, 1].
    """
    if text == "none":
        return []
    try:
        fractions = [float(word) for word in text.split(",")]
    except ValueError:
        fractions = [0.0]
    expected = "none, or fractions of the image's side in (0, 1], separated by commas, such as 0.5,0.75,1"
    check_valid("progressive_resizing", text, all(0 < fraction <= 1 for fraction in fractions), expected)
    return fractions


def override(recipe, settings):
    """Returns a recipe with settings replaced; `minutes` or `epochs` alone is the only limit then.

    Raises:
        ValueError: a value is not allowed; the message names the command's option.
    """
    if "minutes" in settings or "epochs" in settings:
        settings = {"minutes": None, "epochs": None, **settings}
    try:
        return replace(recipe, **settings)
    except ValueError as error:
        message = str(error)
        for name in sorted(settings, key=len, reverse=True):
            message = message.replace(f"`{name}`", f"--{name.replace('_', '-')}")
        raise ValueError(message) from None


def read_recipe(values):
    """Returns the recipe in the config.json of a run, a dict of all settings.

    Raises:
        ValueError: a setting is unknown or missing, as in a run of another version, or not allowed.
    """
    known = {item.name for item in fields(Recipe)}
    if set(values) != known:
        differing = listing(sorted(known ^ set(values)))
        raise ValueError(
            f"the run was started with another version of vit_tf, which has other settings ({differing}): "
            "resume it with that version, or start a new run"
        )
    return Recipe(**values)
