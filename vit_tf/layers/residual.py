"""The layers at the end of a residual branch: LayerScale and DropPath."""

from typing import Any

import keras
from keras import ops

from vit_tf.checks import check_number
from vit_tf.config import Shape, Tensor
from vit_tf.layers.composite import register


@register
class DropPath(keras.layers.Layer):
    """Drops a residual branch for whole samples, and scales the kept ones up by 1 / (1 - rate).

    Reference: Huang et al., "Deep Networks with Stochastic Depth" (https://arxiv.org/abs/1603.09382).

    Args:
        rate: float in [0, 1), the probability that a sample loses the branch; each block's is set by
            `vit_tf.config.ViTConfig.block_config`.
        seed: int, for a reproducible choice.

    Call arguments:
        inputs: tensor `(b, ...)`.
        training: bool, whether branches are dropped.

    Output shape: as the input.

    Raises:
        ValueError: `rate` is outside [0, 1).
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        check_number("rate", rate, "[0, 1)")
        self.rate = rate
        self.seed = seed
        self.supports_masking = True
        if rate:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not training or not self.rate:
            return inputs
        noise_shape = (ops.shape(inputs)[0],) + (1,) * (len(inputs.shape) - 1)
        return keras.random.dropout(inputs, self.rate, noise_shape, seed=self.seed_generator)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@register
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a learned factor that starts small.

    Reference: Touvron et al., "Going deeper with Image Transformers"
    (https://arxiv.org/abs/2103.17239), section 2.

    Args:
        initial_value: float, the initial factors.

    Input and output shape: `(..., d)`.
    """

    def __init__(self, initial_value: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.initial_value = initial_value
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        self.gamma = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_value),
            name="gamma",
        )

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * self.gamma

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial_value": self.initial_value}
