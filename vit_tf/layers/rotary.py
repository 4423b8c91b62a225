"""Rotary positions: queries and keys are turned by angles that grow with their places in the image.

Each head's k channels form k / 2 pairs. A token at the coordinates (y, x) has its pair j turned by the angle
y * frequency[0, j] + x * frequency[1, j]. So the product of a turned query and a turned key depends on the
difference of their places only. Tokens before the patches have the coordinates (0, 0): they are not turned.

Shapes in the comments: b batch, H heads, p prefix tokens, n tokens with these, k head width.
"""

import math
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops

from vit_tf.checks import pair
from vit_tf.config import RotaryConfig, Shape, Size, Tensor
from vit_tf.layers.composite import arguments, register
from vit_tf.layers.configured import ConfiguredLayer
from vit_tf.layers.patches import check_num_tokens


@register
class RotaryPositions(ConfiguredLayer):
    """Turns the queries, or the keys, of all heads by their positions.

    Args:
        grid_size: (rows, columns) of the patches, which come last among the tokens. None: each call has a
            `grid`.
        num_prefix_tokens: int, the number p of tokens before the patches.
        **kwargs: fields of `vit_tf.config.RotaryConfig`, such as `kind="mixed"`.

    Call arguments:
        inputs: tensor `(b, H, n, k)`; `(b, n, H, k)` with `tokens_first`.
        grid: None, or a tensor `(rows, columns)`, see `PatchGrid`.
        tokens_first: bool, see above.

    Output shape: as the input.

    Raises:
        ValueError: an invalid option; at build, k is not a multiple of 4, or n differs from p plus the size
            of the grid; at a call, there is neither `grid_size` nor `grid`.

    References: Su et al., "RoFormer" (https://arxiv.org/abs/2104.09864); in images Heo et al., "Rotary
    Position Embedding for Vision Transformer" (https://arxiv.org/abs/2403.13298), and Siméoni et al.,
    "DINOv3" (https://arxiv.org/abs/2508.10104).
    """

    config_class = RotaryConfig

    def __init__(self, grid_size: Size | None = None, num_prefix_tokens: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.grid_size = None if grid_size is None else pair(grid_size, "grid_size")
        self.num_prefix_tokens = num_prefix_tokens

    def build_parts(self, input_shape: Shape) -> None:
        heads, n, self.width = input_shape[-3:]
        if self.width % 4:
            raise ValueError(f"rotary positions need a multiple of 4 channels per head, got {self.width}")
        if self.grid_size is not None:
            check_num_tokens(n, self.grid_size, self.num_prefix_tokens)
        if self.config.kind == "mixed":  # as many heads as queries have
            self.frequencies = self.add_weight(
                shape=(2, heads, self.width // 2),
                initializer=RotatedFrequencies(self.config.temperature),
                autocast=False,  # float32, as all angles
                name="frequencies",
            )

    def call(self, inputs: Tensor, grid: Tensor | None = None, tokens_first: bool = False) -> Tensor:
        return self.turn(inputs, self.factors(grid, tokens_first))

    def factors(self, grid: Tensor | None = None, tokens_first: bool = False) -> list[Tensor]:
        """Returns cosines and signed sines for `turn`, float32 `(H, n, k)`; 1 for H if all heads share them.

        Args:
            grid, tokens_first: see the class; with `tokens_first` the results are `(n, H, k)`.
        """
        config, p = self.config, self.num_prefix_tokens
        if grid is None and self.grid_size is None:
            raise ValueError(f"{self.path!r} needs a `grid` in its call, since it has no `grid_size`")
        if grid is None and config.kind != "mixed":
            tables = constant_factors(self.width, self.grid_size, p, config)
        else:
            grid_size = self.grid_size if grid is None else ops.shape(grid)
            places = ops.convert_to_tensor(coordinates(grid_size, p, config, np if grid is None else ops))
            is_mixed = config.kind == "mixed"
            frequencies = self.frequencies if is_mixed else axial_frequencies(self.width, config.temperature)
            tables = trigonometric(places, ops.cast(frequencies, "float32"), config.half_rotation, ops)
        return [ops.swapaxes(table, 0, 1) for table in tables] if tokens_first else list(tables)

    def turn(self, x: Tensor, factors: list[Tensor]) -> Tensor:
        """Returns queries or keys `(..., n, k)` turned, in their own dtype; computed in float32 at least."""
        cosines, sines = (ops.cast(y, keras.backend.result_type(x.dtype, "float32")) for y in factors)
        wide = ops.cast(x, cosines.dtype)
        if self.config.half_rotation:
            others = ops.roll(wide, self.width // 2, axis=-1)
        else:
            pairs = ops.reshape(wide, (*ops.shape(x)[:-1], self.width // 2, 2))
            others = ops.reshape(ops.flip(pairs, axis=-1), ops.shape(x))
        return ops.cast(wide * cosines + others * sines, x.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **arguments(self, "grid_size", "num_prefix_tokens")}


@lru_cache(maxsize=8)  # the blocks of a model share them
def constant_factors(width, grid_size, num_prefix_tokens, config):
    """Returns cosines and signed sines, float32 arrays `(1, n, k)`, of fixed frequencies and a known grid."""
    places = coordinates(grid_size, num_prefix_tokens, config, np)
    frequencies = axial_frequencies(width, config.temperature)
    return trigonometric(places, frequencies, config.half_rotation, np)


def coordinates(grid_size, num_prefix_tokens, config, xp):
    """Returns the coordinates of all tokens, float32 `(p + rows * columns, 2)`: zeros before the patches.

    The first coordinate is along the rows, or along the columns with `columns_first`.

    Args:
        grid_size: (rows, columns) of the patches, ints or scalar tensors.
        num_prefix_tokens: int, p.
        config: a `RotaryConfig`.
        xp: NumPy for an array, `keras.ops` for a tensor.
    """
    axes = []
    for count, reference in zip(grid_size, config.reference_grid or (None, None)):
        axis = xp.arange(count, dtype="float32")
        size = np.float32(count) if xp is np else ops.cast(count, "float32")
        if config.kind == "dinov3":
            axis = ((axis + 0.5) / size * 2 - 1) * np.float32(2 * math.pi)
        elif config.kind == "axial":
            axis = axis + np.float32(config.offset)
            axis = axis if reference is None else axis / size * np.float32(reference)
        axes.append(axis)
    y, x = (xp.reshape(places, (-1, 1)) for places in xp.meshgrid(*axes, indexing="ij"))
    places = xp.concatenate([x, y] if config.columns_first else [y, x], axis=-1)
    return xp.pad(places, ((num_prefix_tokens, 0), (0, 0)))


def trigonometric(places, frequencies, half_rotation, xp):
    """Returns cosines and signed sines `(H, n, k)` of the angles at places `(n, 2)`.

    Args:
        frequencies: `(2, H, k / 2)`, or `(2, 1, k / 2)` for all heads.
        half_rotation: see `RotaryConfig`.
        xp: see `coordinates`.
    """
    angles = sum(places[:, i : i + 1] * frequencies[i][:, None] for i in (0, 1))  # (H, n, k / 2)
    cosines, sines = xp.cos(angles), xp.sin(angles)
    if half_rotation:
        return xp.concatenate([cosines, cosines], axis=-1), xp.concatenate([-sines, sines], axis=-1)
    shape = (cosines.shape[0], -1, 2 * cosines.shape[2])
    return xp.repeat(cosines, 2, axis=-1), xp.reshape(xp.stack([-sines, sines], axis=-1), shape)


def axial_frequencies(width, temperature):
    """Returns fixed frequencies, float32 `(2, 1, k / 2)`: half of the pairs for each coordinate."""
    bands = falling_powers(width, temperature)
    zeros = np.zeros_like(bands)
    return np.stack([np.concatenate([bands, zeros]), np.concatenate([zeros, bands])])[:, None]


def falling_powers(width, temperature):
    """Returns temperature ** (-4 i / k) for i from 0 to k / 4 - 1, float32."""
    exponents = np.arange(width // 4, dtype="float32") / np.float32(width // 4)
    return np.float32(1) / np.float32(temperature) ** exponents


@register
class RotatedFrequencies(keras.initializers.Initializer):
    """The fixed frequencies, with the two axes rotated by a random angle in each head (RoPE-ViT).

    Args:
        temperature: see `RotaryConfig`.
    """

    def __init__(self, temperature: float):
        self.temperature = temperature

    def __call__(self, shape: Shape, dtype: str | None = None) -> Tensor:
        _, heads, pairs = shape
        sizes = falling_powers(2 * pairs, self.temperature)
        angle = keras.random.uniform((heads, 1), 0, 2 * math.pi, dtype="float32")
        angles = ops.concatenate([angle + 0 * sizes, angle + math.pi / 2 + 0 * sizes], axis=-1)
        sizes = np.concatenate([sizes, sizes])
        return ops.cast(ops.stack([sizes * ops.cos(angles), sizes * ops.sin(angles)]), dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        return {"temperature": self.temperature}


@register
class PatchGrid(keras.layers.Layer):
    """Tells the blocks the grid of images of any size: a tensor whose shape is (rows, columns).

    A shape stays known where the backend compiles for each size, and no dtype policy rounds it.

    Input shape: `(b, rows, columns, d)`, a map of patches.
    Output shape: `(rows, columns)`, int32 zeros.
    """

    def call(self, patches: Tensor) -> Tensor:
        return ops.zeros(ops.shape(patches)[1:3], "int32")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[1:3])

    def compute_output_spec(self, patches: Tensor) -> Tensor:
        return keras.KerasTensor(patches.shape[1:3], "int32")
