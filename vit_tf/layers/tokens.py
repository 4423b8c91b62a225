"""The layers before and after the blocks: prefix tokens, positions, pooling.

Shapes in the comments: b batch, n tokens, p prefix tokens, d model width.
"""

import math
from typing import Any

import keras
from keras import ops

from vit_tf.checks import check_choice, pair
from vit_tf.config import Shape, Size, Tensor
from vit_tf.layers.attention import head_width
from vit_tf.layers.chunked_attention import softmax
from vit_tf.layers.composite import CompositeLayer, arguments, register
from vit_tf.layers.hooks import HookedLayer
from vit_tf.layers.mlp import MLP, Activation, get_activation
from vit_tf.layers.norms import make_norm
from vit_tf.layers.patches import as_tokens
from vit_tf.layers.position_table import resample_table
from vit_tf.layers.token_dense import TokenDense


@register
class PatchEncoder(CompositeLayer):
    """Prepends the prefix tokens and adds learned position embeddings (ViT paper, eq. 1).

    The prefix tokens are, in this order: class token, distillation token (DeiT,
    https://arxiv.org/abs/2012.12877), registers (https://arxiv.org/abs/2309.16588).

    Patches may come as a map with rows and columns, which says its grid: so a model takes images of any size.
    If the position table is of another grid, it is resampled to the grid of the patches, in float32.

    Args:
        grid_size: (rows, columns) of the patch grid; None for a side that each map of patches says anew.
        class_token: bool, whether there is a class token.
        distillation_token: bool, whether there is a distillation token.
        num_registers: int, number of register tokens.
        prefix_positions: bool, whether the prefix tokens have position embeddings, too.
        position_table: bool. False leaves the position embeddings out, for blocks that have positions.
        position_grid: (rows, columns) of the position table. Defaults to `grid_size`.
        resampling: dict, how the table is resampled, see `vit_tf.interpolation.grid_matrices`. Defaults to
            bicubic with antialias.

    Input shape: `(b, rows * columns, d)` or `(b, rows, columns, d)`; the latter if the grid is unknown.
    Output shape: `(b, p + rows * columns, d)`, the prefix tokens first.

    Raises:
        ValueError: the grid is unknown and `position_grid` is missing; at build, the number of patches
            differs from that of the grid, or the grid is unknown and the patches are no map.
    """

    def __init__(
        self,
        grid_size: Any,
        class_token: bool = True,
        distillation_token: bool = False,
        num_registers: int = 0,
        prefix_positions: bool = True,
        position_table: bool = True,
        position_grid: Size | None = None,
        resampling: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.grid_size = pair(grid_size, "grid_size", unknown=True)
        if position_grid is None and None in self.grid_size:
            raise ValueError(
                f"a grid of {self.grid_size} has unknown sides: give `position_grid`, that of the table"
            )
        self.position_grid = pair(position_grid or self.grid_size, "position_grid")
        self.resampling = resampling or {}
        self.class_token = class_token
        self.distillation_token = distillation_token
        self.num_registers = num_registers
        self.prefix_positions = prefix_positions
        self.position_table = position_table

    @property
    def num_prefix_tokens(self):
        return int(self.class_token) + int(self.distillation_token) + self.num_registers

    @property
    def num_prefix_positions(self):
        """The number of rows of the position table that belong to prefix tokens, which come first."""
        return self.num_prefix_tokens if self.prefix_positions and self.position_table else 0

    def build_parts(self, input_shape: Shape) -> None:
        width = input_shape[-1]
        self.check_patches(input_shape)
        self.prefix = []
        for name, count, initializer in (
            ("class_token", int(self.class_token), "zeros"),
            ("distillation_token", int(self.distillation_token), "zeros"),
            ("register_tokens", self.num_registers, keras.initializers.RandomNormal(stddev=1e-6)),
        ):
            if count:
                token = self.add_weight(shape=(1, count, width), initializer=initializer, name=name)
                self.prefix.append(token)
        if self.position_table:
            self.position_embedding = self.add_weight(
                shape=(1, math.prod(self.position_grid) + self.num_prefix_positions, width),
                initializer=keras.initializers.TruncatedNormal(stddev=0.02),
                autocast=self.position_grid == self.grid_size,  # resampled in float32
                name="position_embedding",
            )

    def check_patches(self, input_shape: Shape) -> None:
        _, *sides, _ = input_shape
        if None in self.grid_size and len(sides) != 2:
            raise ValueError(
                f"a grid of {self.grid_size} has unknown sides, and patches {tuple(input_shape)} do not say "
                "them: give a map (b, rows, columns, d), as stems with `flatten=False` do"
            )
        expected = self.grid_size if len(sides) == 2 else (math.prod(self.grid_size),)
        if any(None not in (side, known) and side != known for side, known in zip(sides, expected)):
            raise ValueError(
                f"a grid of {self.grid_size} has {math.prod(self.grid_size)} patches, got "
                f"{' x '.join(map(str, sides))}: give the grid size of the images that the layer takes"
            )

    def call(self, patches: Tensor) -> Tensor:
        grid = self.grid_size
        if len(patches.shape) == 4:
            _, *grid, _ = ops.shape(patches)
            patches = as_tokens(patches)
        b, _, d = ops.shape(patches)
        positions = self.positions(grid) if self.position_table else None
        tokens = patches
        if self.position_table and not self.prefix_positions:
            tokens = tokens + positions
        if self.prefix:
            prefix = [ops.broadcast_to(token, (b, token.shape[1], d)) for token in self.prefix]
            tokens = ops.concatenate([*prefix, tokens], axis=1)  # (b, p + n, d)
        return tokens + positions if self.position_table and self.prefix_positions else tokens

    def positions(self, grid: Shape) -> Tensor:
        """Returns the position table of a grid of patches (rows, columns)."""
        if self.position_grid == self.grid_size:
            return self.position_embedding
        table = ops.cast(self.position_embedding, "float32")
        table = resample_table(table, self.position_grid, grid, self.num_prefix_positions, **self.resampling)
        return ops.cast(table, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        grid = input_shape[1:3] if None in self.grid_size else self.grid_size
        n = None if None in grid else math.prod(grid) + self.num_prefix_tokens
        return input_shape[0], n, input_shape[-1]

    def get_config(self) -> dict[str, Any]:
        names = ("grid_size", "class_token", "distillation_token", "num_registers", "prefix_positions")
        config = {**super().get_config(), **arguments(self, *names, "position_table", "position_grid")}
        return {**config, "resampling": dict(self.resampling)}


@register
class TokenPooling(keras.layers.Layer):
    """Reduces the tokens of an image to one feature vector.

    Args:
        pooling: "token" takes one token; "avg", "max" and "avgmax" (the mean of "avg" and "max") reduce the
            tokens after the prefix tokens; "token_avg" concatenates "token" and "avg".
        token_index: int, the index of the token for "token" and "token_avg".
        num_prefix_tokens: int, the number of leading tokens that the other kinds leave out.

    Input shape: `(b, n, d)`.
    Output shape: `(b, d)`; `(b, 2 * d)` for "token_avg".

    Raises:
        ValueError: another `pooling`.
    """

    KINDS = ("token", "avg", "max", "avgmax", "token_avg")

    def __init__(
        self, pooling: str = "token", token_index: int = 0, num_prefix_tokens: int = 0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        check_choice("pooling", pooling, self.KINDS)
        self.pooling = pooling
        self.token_index = token_index
        self.num_prefix_tokens = num_prefix_tokens

    def call(self, inputs: Tensor) -> Tensor:
        token, patches = inputs[:, self.token_index], inputs[:, self.num_prefix_tokens :]
        if self.pooling == "token":
            return token
        if self.pooling == "max":
            return self.maximum(patches)
        average = ops.mean(patches, axis=1)
        if self.pooling == "avgmax":
            return (self.maximum(patches) + average) / 2
        return average if self.pooling == "avg" else ops.concatenate([token, average], axis=-1)

    def maximum(self, patches: Tensor) -> Tensor:
        if patches.shape[0] == 0:
            return patches[:, 0]
        # Without `initial`, Keras rejects an empty batch in a graph.
        return ops.max(patches, axis=1, initial=-math.inf)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], input_shape[-1] * (2 if self.pooling == "token_avg" else 1)

    def get_config(self) -> dict[str, Any]:
        names = ("pooling", "token_index", "num_prefix_tokens")
        return {**super().get_config(), **arguments(self, *names)}


@register
class AttentionPooling(HookedLayer):
    """Multi-head attention pooling (MAP): one learned query attends to the tokens, then an MLP.

    Reference: Zhai et al., "Scaling Vision Transformers" (https://arxiv.org/abs/2106.04560),
    section 2.2. SigLIP pools by this layer.

    Args:
        num_heads: int.
        mlp_dim, activation: see `MLP`.
        norm, norm_epsilon: kind and epsilon of the norm before the MLP, see `make_norm`.
        num_prefix_tokens: int, the number of leading tokens that are left out.

    Call arguments:
        inputs: tensor `(b, n, d)`.

    Output shape: `(b, d)`.

    Hooks (see `vit_tf.layers.hooks`): "scores" on the attention probabilities.

    Raises:
        ValueError: at build, `num_heads` does not divide d.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        activation: Activation = "gelu",
        norm: str = "layer",
        norm_epsilon: float = 1e-6,
        num_prefix_tokens: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.activation = get_activation(activation)
        self.norm = norm
        self.norm_epsilon = norm_epsilon
        self.num_prefix_tokens = num_prefix_tokens
        self.mlp_norm = make_norm(norm, norm_epsilon, self.dtype_policy, "mlp_norm")
        self.mlp = MLP(mlp_dim, activation, dtype=self.dtype_policy, name="mlp")

    def build_parts(self, input_shape: Shape) -> None:
        d = input_shape[-1]
        self.head_width = head_width(d, self.num_heads)
        self.latent = self.add_weight(
            shape=(1, 1, d), initializer=keras.initializers.TruncatedNormal(stddev=d**-0.5), name="latent"
        )
        for name, width in (("query", d), ("key_value", 2 * d), ("projection", d)):
            layer = TokenDense(width, dtype=self.dtype_policy, name=name)
            layer.build((*input_shape[:-1], d))
            setattr(self, name, layer)
        self.mlp_norm.build((input_shape[0], d))
        self.mlp.build((input_shape[0], d))

    def call(self, inputs: Tensor) -> Tensor:
        key, value = self.keys_and_values(inputs)
        x = ops.matmul(self.hooked("scores", self.softmax_scores(key)), value)  # (b, H, 1, k)
        x = self.projection(ops.reshape(x, (ops.shape(x)[0], self.num_heads * self.head_width)))
        return x + self.mlp(self.mlp_norm(x))

    def scores(self, inputs: Tensor) -> Tensor:
        """Returns the attention probabilities `(b, H, 1, n)` of the learned query for tokens `(b, n, d)`."""
        return self.softmax_scores(self.keys_and_values(inputs)[0])

    def keys_and_values(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Returns keys and values, each `(b, H, n, k)`, of the tokens after the prefix tokens."""
        tokens = inputs[:, self.num_prefix_tokens :]
        b, n, _ = ops.shape(tokens)
        key_value = ops.reshape(self.key_value(tokens), (b, n, 2, self.num_heads, self.head_width))
        return ops.unstack(ops.transpose(key_value, (2, 0, 3, 1, 4)), 2)

    def softmax_scores(self, key: Tensor) -> Tensor:
        query = ops.reshape(self.query(self.latent), (1, self.num_heads, 1, self.head_width))
        scores = ops.matmul(query * self.head_width**-0.5, ops.swapaxes(key, -1, -2))
        return ops.cast(softmax(scores), self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], input_shape[-1]

    def get_config(self) -> dict[str, Any]:
        names = ("num_heads", "mlp_dim", "norm", "norm_epsilon", "num_prefix_tokens")
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), **arguments(self, *names), "activation": activation}
