"""Named settings to start from: of `vit-tf train --preset` and of `vit-tf finetune --recipe`.

Each is plain data, and names may be combined: in "adamw,long" the settings of "long" are added to, and take
precedence over, those of "adamw". Accuracies are of CIFAR-10's test images; docs/results has the machines.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from vit_tf.checks import require, suggestion
from vit_tf.training.recipes import Recipe, override


@dataclass(frozen=True)
class Preset:
    """Settings, and for training from scratch a model and an engine.

    Args:
        settings: dict, fields of `Recipe` that differ from its defaults.
        on: name of the preset to which this one is added if it comes first.
        variant: name of a variant, or None.
        hyperparameters: dict, overrides of the variant.
        engine: a key of `vit_tf.training.loop.engines.ENGINES`.
    """

    settings: dict
    on: str | None = None
    variant: str | None = None
    hyperparameters: dict = field(default_factory=dict)
    engine: str = "train-batch"


GPU_MODEL = dict(
    patch_size=4,
    patch_stem="whitened",
    hidden_dim=384,
    num_layers=5,
    num_heads=6,
    mlp_dim=1536,
    activation="gelu_tanh",
    pooling="avg",
)
GPU_SETTINGS = dict(
    optimizer="muon",
    learning_rate=2e-3,
    warmup=0.05,
    weight_decay=0.1,
    batch_size=512,
    label_smoothing=0.1,
    crop="pad",
    cutmix=1.0,
    monitor="last",
    mixed_precision=True,
)
TRAINING = {
    # vit-tf train --data cifar10.npz: 10 minutes on 2 cores, 89 %.
    "default": Preset(
        dict(
            epochs=100,  # the run ends with its epochs or its minutes, whichever comes first
            minutes=10.0,
            optimizer="muon",
            batch_size=256,
            learning_rate=4e-3,
            label_smoothing=0.1,
            crop="pad",
            progressive_resizing="0.75,1",
            mixed_precision=None,
        ),
        variant="vit_cifar10_hybrid",
    ),
    # vit-tf train --data cifar10.npz --preset long: 60 minutes on 2 cores, 92 %.
    # Without erasing, so many epochs would overfit the training images.
    "long": Preset(dict(minutes=60.0, random_erasing=0.5), on="default"),
    # vit-tf train --data cifar10.npz --preset adamw: 10 minutes on 2 cores, 88 %.
    # As with two of Keras's ModelCheckpoint callbacks, the weights of the best validation accuracy and the
    # last weights are kept.
    "adamw": Preset(
        dict(optimizer="adamw", batch_size=128, learning_rate=2e-3, keep_last=True), on="default"
    ),
    # vit-tf train --data cifar10.npz --preset tutorial: 80 minutes on 2 cores; 49.4 % after 2 epochs.
    # https://keras.io/examples/vision/image_classification_with_vision_transformer/
    "tutorial": Preset(
        dict(
            epochs=10,
            optimizer="adamw",
            batch_size=256,
            learning_rate=1e-3,
            schedule="constant",
            warmup=0.0,
            weight_decay=1e-4,
            crop="affine",
        ),
        variant="vit_cifar10_tutorial",
    ),
    # vit-tf train --data cifar10.npz --preset gpu: 4 minutes and the compilation on one H200, 93.8 %.
    # 9.7M parameters, 64 tokens. The minutes are a limit for slower machines.
    "gpu": Preset(
        dict(
            GPU_SETTINGS,
            epochs=300,
            minutes=4.0,
            ema=0.999,
            drop_path_rate=0.1,
            randaugment=2.0,
            mixup=0.2,
            checkpoint_minutes=1.0,
        ),
        variant="vit_cifar10",
        hyperparameters=GPU_MODEL,
        engine="compiled-epoch",
    ),
    # vit-tf train --data cifar10.npz --preset gpu-long: an hour on one GPU.
    # 256 tokens, as CCT-7/3x1 has (https://arxiv.org/abs/2104.05704), and its heavier augmentation.
    "gpu-long": Preset(
        dict(
            GPU_SETTINGS,
            epochs=600,
            minutes=60.0,
            ema=0.9995,
            drop_path_rate=0.2,
            randaugment=5.0,
            random_erasing=0.25,
            mixup=0.8,
            checkpoint_minutes=2.0,
        ),
        variant="vit_cifar10",
        hyperparameters={**GPU_MODEL, "patch_size": 2, "num_layers": 7},
        engine="compiled-epoch",
    ),
    # vit-tf train --data sample --preset gpu-tiny: tries the engine on any machine, in seconds.
    "gpu-tiny": Preset(
        dict(epochs=2, learning_rate=2e-3, batch_size=64, ema=0.9, crop="pad", cutmix=1.0, monitor="last"),
        variant="vit_cifar10",
        hyperparameters={**GPU_MODEL, "hidden_dim": 32, "num_layers": 1, "num_heads": 2, "mlp_dim": 64},
        engine="compiled-epoch",
    ),
}
# vit-tf finetune DATA --weights SOURCE --recipe NAME. Learning rates are for AdamW with batches of 32.
FINETUNING = {
    # Only the head is trained: minutes, and a measure of the quality of the features.
    "linear-probe": Preset(dict(freeze="backbone", learning_rate=1e-2, weight_decay=0.0, epochs=20)),
    # All weights are trained, the layers near the pixels slowly, as in BEiT (https://arxiv.org/abs/2106.08254).
    "full": Preset(
        dict(learning_rate=1e-4, layer_decay=0.75, drop_path_rate=0.1, label_smoothing=0.1, clip_norm=1.0)
    ),
    # Small matrices beside frozen ones (https://arxiv.org/abs/2106.09685): less memory.
    "lora": Preset(
        dict(lora_rank=8, learning_rate=1e-3, weight_decay=0.0, label_smoothing=0.1, clip_norm=1.0)
    ),
    # Some dozens or hundreds of images per class: longer, with everything against overfitting.
    "small-data": Preset(
        dict(
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
        )
    ),
}
PRESETS = TRAINING | FINETUNING
RECIPES = {name: Recipe(**preset.settings) for name, preset in FINETUNING.items()}


def get_preset(names):
    """Returns the `Preset` called `names`: one name, or several with commas, the later ones added.

    Raises:
        ValueError: there is no preset of that name.
    """
    words = names.split(",")
    for word in words:
        problem = f"unknown preset or recipe {word!r}{suggestion(word, PRESETS)}"
        require(word in PRESETS, f"{problem}: expected some of {', '.join(PRESETS)}")
    first = PRESETS[words[0]].on
    parts = [PRESETS[word] for word in ([first] if first and first not in words else []) + words]
    model = next((part for part in reversed(parts) if part.variant), Preset({}))
    settings = {name: value for part in parts for name, value in part.settings.items()}
    return replace(model, settings=settings, on=None)


def get_recipe(name: str, **overrides: Any) -> Recipe:
    """Returns the recipe called `name` with some settings replaced.

    Args:
        name: of a preset, or several names with commas, such as "small-data,lora".
        **overrides: settings, fields of `Recipe`.

    Raises:
        ValueError: no recipe or no setting has that name, or a value is not allowed.
    """
    settings = get_preset(name).settings
    known = [item.name for item in fields(Recipe)]
    for override_name in overrides:
        if override_name not in known:
            raise ValueError(f"unknown setting {override_name!r}{suggestion(override_name, known)}")
    return Recipe(**{**settings, **overrides})


def make_recipe(command):
    """Returns the recipe of a command: its preset with its settings."""
    return override(get_recipe(command["preset"]), command["settings"])
