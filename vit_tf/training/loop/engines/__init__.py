"""Engines: how an epoch is computed. `Trainer` has the logic of the run around them.

An engine has the attributes `model` (the ViT), `training_model` (the compiled model from training images to
logits, with the ViT inside), `loader`, `validation` and `variables` (groups of all variables that training
changes), and the methods of `TrainBatchEngine`. `ENGINES` declares what each engine supports; it is read
before Keras is imported.
"""

from dataclasses import dataclass, fields

from vit_tf.checks import require, shown
from vit_tf.config_checks import BATCH_NORM_STEMS
from vit_tf.training.recipes import Recipe


@dataclass(frozen=True)
class EngineInfo:
    """What an engine supports.

    Args:
        backend: the backend of Keras that the engine needs, or None.
        unsupported: names of settings that must have their defaults.
        crops: the supported values of the setting `crop`.
        description: one line.
    """

    description: str
    backend: str | None = None
    unsupported: frozenset[str] = frozenset()
    crops: tuple[str, ...] = Recipe.__dataclass_fields__["crop"].metadata["limits"]


ENGINES = {
    "train-batch": EngineInfo("batch by batch, on every backend, with all settings"),
    "compiled-epoch": EngineInfo(
        "an epoch as one compiled call with all images on the device, on JAX",
        backend="jax",
        unsupported=frozenset(
            "progressive_resizing freeze lora_rank lora_alpha lora_targets class_weights crop_scale "
            "deterministic cache".split()
        ),
        crops=("pad", "affine", "none"),
    ),
}


def check_recipe(engine, recipe):
    """Raises a ValueError that names the first setting of a recipe that an engine does not support."""
    info = ENGINES[engine]
    crops = ", ".join(info.crops)
    require(recipe.crop in info.crops, f"--engine {engine} supports --crop {crops}, got {shown(recipe.crop)}")
    for item in fields(Recipe):
        value = getattr(recipe, item.name)
        if item.name in info.unsupported and value != item.default:
            option = item.name.replace("_", "-")
            default = f"--no-{option}" if item.default is False else f"--{option} {item.default or 'none'}"
            raise ValueError(
                f"--engine {engine} does not support --{option}, got {shown(value)}: leave the option out, "
                f"give {default} if a preset has it, or choose --engine train-batch"
            )


def check_exact_on_parts(recipe, stem=None):
    """Raises a ValueError if a run's result depends on how devices divide its batches.

    `vit_tf.training.loop.engines.mirrored_batch` could not have the results of one device then: each device
    draws random numbers, and normalises, for its part of a batch alone.

    Args:
        recipe: a `Recipe`.
        stem: the `patch_stem` of the model, if it is known.
    """
    for name in ("dropout_rate", "drop_path_rate"):
        if value := getattr(recipe, name):
            raise ValueError(
                f"several devices on TensorFlow do not support --{name.replace('_', '-')}, got "
                f"{shown(value)}: start the process with KERAS_BACKEND=jax, which draws for the whole batch, "
                "leave the option out, or train on one device"
            )
    if stem in BATCH_NORM_STEMS:
        raise ValueError(
            f"several devices on TensorFlow do not support the batch normalisation of patch_stem={stem!r}: "
            "start the process with KERAS_BACKEND=jax, choose another variant, or train on one device"
        )
