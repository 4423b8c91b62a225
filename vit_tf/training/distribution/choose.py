"""From `--distribute` to the backend of Keras and the placement of a run."""

import importlib.util
import os
import sys

from vit_tf.checks import require
from vit_tf.training.loop.engines import check_exact_on_parts

CHOICES = ("auto", "none", "data", "model")


def choose_backend(distribute, rendezvous, engine="train-batch"):
    """Selects JAX for a run of several processes or a divided model, before Keras is imported.

    Raises:
        ValueError: another backend was selected before, or the engine computes on one device alone.
    """
    needs_jax = not rendezvous.is_alone or distribute == "model"
    reason = "several processes" if not rendezvous.is_alone else f"--distribute {distribute}"
    is_divided = needs_jax or distribute == "data"
    hint = "choose --engine train-batch, or one process and --distribute none"
    require(not is_divided or engine == "train-batch", f"--engine {engine} computes on one device: {hint}")
    problem = f"{reason} cannot be combined with --distribute none"
    require(rendezvous.is_alone or distribute != "none", f"{problem}: leave that option out")
    if not needs_jax:
        return
    if "keras" in sys.modules:
        selected = sys.modules["keras"].backend.backend()
    else:
        selected = os.environ.setdefault("KERAS_BACKEND", "jax")
    if selected != "jax":
        raise ValueError(
            f"Keras on JAX is needed for {reason}, got KERAS_BACKEND={selected}: leave the variable out (on "
            "TensorFlow one process uses several GPUs of its machine by --distribute data)"
        )
    is_installed = importlib.util.find_spec("jax") is not None
    require(is_installed, f"JAX is needed for {reason}: pip install 'jax[cuda13]', or jax without a GPU")


def choose_placement(distribute, recipe, model_devices=None, engine="train-batch", stem=None):
    """Returns the placement of a run, after Keras was imported and the processes were connected.

    Args:
        distribute: one of `CHOICES`. "auto" is "data" where this run has several devices.
        recipe: a `Recipe`.
        model_devices: see `JaxDevices`.
        engine: name of the engine, see `vit_tf.training.loop.engines`.
        stem: the `patch_stem` of the model, if it is known before the model is built.

    Raises:
        ValueError: the backend cannot do it, or the devices cannot be divided in this way.
    """
    import keras

    from vit_tf.training.distribution.placement import JaxDevices, OneDevice

    is_divided = distribute == "model"
    hint = "leave the option out, or choose --distribute model"
    require(is_divided or model_devices is None, f"--model-devices goes with --distribute model: {hint}")
    hint = "choose --distribute data, or --lora-rank 0"
    require(not (is_divided and recipe.lora_rank), f"--distribute model does not support LoRA: {hint}")

    backend = keras.backend.backend()
    if distribute == "none" or (distribute == "auto" and engine != "train-batch"):
        return OneDevice()
    if backend == "jax":
        import jax

        if distribute == "auto" and jax.device_count() == 1:
            return OneDevice()
        return JaxDevices("model" if is_divided else "data", model_devices)
    require(
        distribute == "auto" or backend == "tensorflow",
        f"--distribute {distribute} needs Keras on JAX or TensorFlow, got {backend!r}: set KERAS_BACKEND=jax",
    )
    return place_on_tensorflow(distribute, recipe, stem) if backend == "tensorflow" else OneDevice()


def place_on_tensorflow(distribute, recipe, stem):
    """Returns the placement of a run on TensorFlow."""
    from vit_tf.training.distribution.placement import MirroredDevices, OneDevice
    from vit_tf.training.loop.engines.mirrored_batch import mirrored_devices

    if len(mirrored_devices()) == 1:
        return OneDevice()
    try:
        check_exact_on_parts(recipe, stem)
    except ValueError as error:
        if distribute == "data":
            raise
        print(f"note: this run uses one of {len(mirrored_devices())} devices: {error}")
        return OneDevice()
    return MirroredDevices()
