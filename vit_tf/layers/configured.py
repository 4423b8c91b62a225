"""Layers whose options are the fields of a frozen dataclass."""

from dataclasses import fields
from typing import Any

import keras

from vit_tf.layers.hooks import HookedLayer
from vit_tf.layers.norms import make_norm


class ConfiguredLayer(HookedLayer):
    """A layer whose options are the fields of `config_class`, a frozen dataclass of `vit_tf.config`.

    The attribute `config` holds them. `get_config` has them beside the arguments of `keras.layers.Layer`.

    Args:
        **kwargs: fields of `config_class`, and arguments of `keras.layers.Layer`.

    Raises:
        ValueError: an unknown argument, or an invalid value.
    """

    config_class: type

    def __init__(self, **kwargs: Any):
        names = {field.name for field in fields(self.config_class)}
        super().__init__(**{key: value for key, value in kwargs.items() if key not in names})
        self.config = self.config_class(**{key: value for key, value in kwargs.items() if key in names})

    def make_norm(self, name: str, initial_scale: float | None = None) -> keras.layers.Layer:
        return make_norm(self.config.norm, self.config.norm_epsilon, self.dtype_policy, name, initial_scale)

    def get_config(self) -> dict[str, Any]:
        options = dict(vars(self.config))
        if "activation" in options:
            options["activation"] = keras.activations.serialize(options["activation"])
        if options.get("rotary") is not None:
            options["rotary"] = dict(vars(options["rotary"]))
        return {**super().get_config(), **options}
