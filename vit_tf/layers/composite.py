"""The base class of layers that are made of layers, and how Keras finds the layers of this package."""

from typing import Any

import keras

from vit_tf.config import Shape

register = keras.saving.register_keras_serializable(package="vit_tf")


def arguments(layer, *names):
    """Returns attributes of a layer by name: the arguments of its constructor, for `get_config`."""
    return {name: getattr(layer, name) for name in names}


class CompositeLayer(keras.layers.Layer):
    """A layer that saves the settings of its parts: frozen, quantized, adapted by LoRA.

    A layer that is made from its config (in `.keras` files, `clone_model`, `vit_tf.resize_model`) makes new
    parts. Keras saves these settings for the layers of a model, but not for the parts of a layer. So the
    config has settings that differ from the layer's own choice, under "parts".

    Subclasses make their parts in `__init__` or in `build_parts`, which they implement instead of `build`.

    Args:
        parts: dict from the path of a part, such as "attention/qkv" ("" is the layer itself), to its
            settings, see `part_settings`. Defaults to an empty dict.
    """

    def __init__(self, parts: dict[str, dict] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.saved_settings = parts or {}

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if not getattr(self, "_trainable", True):  # parts of a frozen layer are frozen
            for part in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(part, keras.layers.Layer):
                    part.trainable = False

    def build(self, input_shape: Shape) -> None:
        self.build_parts(input_shape)
        for _, _, part in walk(self):
            if not part.built:  # without weights: dropout and the like
                part.build(input_shape)
        parts = {"": self, **{path: part for path, _, part in walk(self)}}
        for path, settings in self.saved_settings.items():
            if path not in parts:
                raise ValueError(f"{self.name!r} has no part {path!r}, its parts are {', '.join(parts)}")
            apply_settings(parts[path], settings)

    def build_parts(self, input_shape: Shape) -> None:
        """Creates all weights, including those of the parts."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        settings = {"": part_settings(self, self.trainable)}
        settings |= {path: part_settings(part, parent.trainable) for path, parent, part in walk(self)}
        settings = {path: values for path, values in settings.items() if values}
        if not self.built:  # the settings wait for the parts
            settings = {**self.saved_settings, **settings}
        config = super().get_config()
        return {**config, "parts": settings} if settings else config


def walk(layer, prefix=""):
    """Yields (path, parent, part) for all layers inside a layer, parents first."""
    for part in layer._flatten_layers(include_self=False, recursive=False):
        path = f"{prefix}{part.name}"
        yield path, layer, part
        yield from walk(part, f"{path}/")


def part_settings(part, inherited):
    """Returns the settings that a part would lose when its parent makes it again, as a dict for JSON.

    Keys: "trainable", a bool, if it differs from `inherited`; "frozen", the names of single frozen weights;
    "dtype", a policy that quantizes, with "quantization_config"; "lora_rank" and "lora_alpha".
    """
    settings = {}
    if part.quantization_mode is not None:
        settings["dtype"] = part.dtype_policy.name
        if part.quantization_config is not None:
            config = keras.saving.serialize_keras_object(part.quantization_config)
            settings["quantization_config"] = config
    if getattr(part, "lora_enabled", False):
        settings |= {"lora_rank": part.lora_rank, "lora_alpha": part.lora_alpha}
    if part.trainable != inherited:
        settings["trainable"] = part.trainable
    frozen = [v.name for v in part._trainable_variables if not v.trainable] if part.trainable else []
    if "lora_rank" in settings:
        frozen = [name for name in frozen if name != "kernel"]  # LoRA itself freezes the kernel
    return {**settings, "frozen": frozen} if frozen else settings


def apply_settings(part, settings):
    """Applies the settings of `part_settings` to a built part."""
    if "dtype" in settings:
        config = keras.saving.deserialize_keras_object(settings.get("quantization_config"))
        if config is None:
            part.dtype_policy = settings["dtype"]  # quantizes a built layer
        else:
            part.quantize(config=config)
    if "lora_rank" in settings:
        part.enable_lora(settings["lora_rank"], settings["lora_alpha"])
    if "trainable" in settings:
        part.trainable = settings["trainable"]
    for variable in part._trainable_variables:
        if variable.name in settings.get("frozen", ()):
            variable.trainable = False
