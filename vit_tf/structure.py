"""Where a model of `build_vit` has its parts, and how deep in the model each weight lies.

The parts are found by their classes and by the names that `build_vit` gives them.
"""

import re

import keras

from vit_tf import layers
from vit_tf.checks import shown, suggestion
from vit_tf.patch_grid import grid_size

PATCHES = "patches"
PREFIX = ("class_token", "distillation_token", "register_tokens")
HYBRID_STEMS = (layers.ResNetEmbedding, layers.MobileCLIPEmbedding)
STEMS = (layers.Patches, layers.PatchEmbedding, layers.OverlapPatchEmbedding, *HYBRID_STEMS)
POOLINGS = (layers.TokenPooling, layers.AttentionPooling)
BEFORE_BLOCKS = ("patch_embedding", "patch_norm", "embedding_norm", "patch_encoder", "pre_norm")
NORMS = {"pre": "pre_norm", "final": "norm", "pooled": "pooled_norm"}
HEADS = ("head", "distillation_head")  # as `build_vit` names them


class ViTStructure:
    """The parts of a model of `build_vit`, of a part of one, or of a functional model that extends one.

    Args:
        model: the `keras.Model`.
        nested: bool, whether the blocks may lie in a model that is a layer of `model`.
        image_size: (height, width) in pixels of the images, for a model that takes any size.

    Attributes:
        layers: all layers, those of nested models in the place of these models.
        blocks: dict from the names of the encoder blocks to the layers, in their order.
        patch_encoder: the `PatchEncoder` with the prefix tokens and the position table, or None.
        poolings: the layers that reduce tokens to features: two in a distilled model, or none.
        heads: the `Dense` layers after the pooling.

    Raises:
        ValueError: the model has no encoder blocks, or only those of a nested model.
    """

    def __init__(self, model, nested=False, image_size=None):
        self.model = model
        self.given_size = image_size
        self.layers = list(flat_layers(model)) if nested else getattr(model, "layers", [])
        self.blocks = {layer.name: layer for layer in self.layers if isinstance(layer, layers.Block)}
        if not self.blocks:
            name = getattr(model, "name", type(model).__name__)
            raise ValueError(f"{shown(name)} has no encoder blocks: give a model of `build_vit`{hint(model)}")
        self.patch_encoder = first_of(self.layers, layers.PatchEncoder)
        self.poolings = [layer for layer in self.layers if isinstance(layer, POOLINGS)]
        pooled = self.layers[self.layers.index(self.poolings[0]) :] if self.poolings else []
        self.heads = [layer for layer in pooled if isinstance(layer, keras.layers.Dense)]

    def named(self, name):
        """Returns the layer of a name, or None."""
        return next((layer for layer in self.layers if layer.name == name), None)

    @property
    def stem(self):
        """The layer that cuts images into patches.

        Raises:
            ValueError: the model takes something other than images.
        """
        stem = first_of(self.layers, STEMS)
        if stem is None:
            raise ValueError(
                f"{self.model.name!r} has no layer that cuts images into patches: give a model of "
                f"`build_vit`, from its images on"
            )
        return stem

    @property
    def patch_embedding(self):
        """The layer whose kernel embeds the pixels: the stem, or the `Dense` after `Patches`."""
        return self.named("patch_embedding")

    @property
    def normalization(self):
        """The layer that normalises pixels in [0, 255], or None: `build_vit`'s, or the first `Rescaling`."""
        stem = first_of(self.layers, STEMS)
        before = self.layers[: self.layers.index(stem)] if stem in self.layers else ()
        return self.named("normalization") or first_of(before, keras.layers.Rescaling)

    @property
    def norms(self):
        """Dict from "pre", "final" and "pooled" to the norms outside the blocks, as far as they exist."""
        norms = {place: self.named(name) for place, name in NORMS.items()}
        return {place: norm for place, norm in norms.items() if norm is not None}

    @property
    def pooling(self):
        """The first of `poolings`, or None."""
        return next(iter(self.poolings), None)

    @property
    def pools_by_attention(self):
        """Whether a learned query reads the tokens, as with `pooling="map"`."""
        return isinstance(self.pooling, layers.AttentionPooling)

    @property
    def image_size(self):
        """Height and width of the images in pixels.

        Raises:
            ValueError: the model takes images of any size, and no size was given.
        """
        size = self.given_size or self.model.input_shape[1:3]
        if None in size:
            raise ValueError(f"{self.model.name!r} takes images of any size: give `image_size`")
        return tuple(size)

    @property
    def patch_size(self):
        """Height and width of a patch in pixels."""
        return self.stem.patch_size

    @property
    def grid_size(self):
        """Rows and columns of the patch grid.

        Raises:
            ValueError: see `image_size`.
        """
        if self.patch_encoder is not None and None not in self.patch_encoder.grid_size:
            return self.patch_encoder.grid_size
        return self.grid_of(self.image_size)

    def grid_of(self, image_size):
        """Returns rows and columns of the patch grid of images of a size, (height, width)."""
        stem = self.stem
        options = getattr(stem, "allow_remainder", False), getattr(stem, "stride", 1)
        return grid_size(image_size, stem.patch_size, *options)

    @property
    def patched_size(self):
        """Height and width in pixels of the area that the patches cover: the image without a remainder."""
        sides = [count * size for count, size in zip(self.grid_size, self.patch_size)]
        return tuple(min(sizes) for sizes in zip(sides, self.image_size))  # hybrid stems pad some images

    @property
    def token_slices(self):
        """Dict from "class_token", "distillation_token", "register_tokens" and "patches" to slices.

        A kind of token that the model does not have is left out.
        """
        encoder, (rows, columns) = self.patch_encoder, self.grid_size
        slices, start = {}, 0
        for name, count in (*prefix_counts(encoder).items(), (PATCHES, rows * columns)):
            if count:
                slices[name] = slice(start, start + count)
            start += count
        return slices

    @property
    def num_tokens(self):
        """Number of tokens in a block, prefix tokens included."""
        return self.token_slices[PATCHES].stop

    def tokens(self, name):
        """Returns the slice of the tokens of a kind.

        Raises:
            ValueError: the model has no tokens of this kind. The message lists the kinds that it has.
        """
        slices = self.token_slices
        if name not in slices:
            raise ValueError(
                f"{self.model.name!r} has no tokens {shown(name)}: choose {' or '.join(map(repr, slices))}"
                f"{suggestion(name, slices)}"
            )
        return slices[name]

    def to_grid(self, values):
        """Returns values `(..., n)` of the n patches as `(..., rows, columns)`."""
        return values.reshape(*values.shape[:-1], *self.grid_size)

    @property
    def num_blocks(self):
        """Number of blocks of the whole model, by the highest number in their names.

        Raises:
            ValueError: no block is named block_0, block_1, ..., as `build_vit` names them.
        """
        indices = [index for index in map(block_index, self.blocks) if index is not None]
        if not indices:
            raise ValueError(f"{self.model.name!r} has no block with a name such as block_0")
        return 1 + max(indices)


def prefix_counts(encoder):
    """Returns a dict from the kinds of prefix tokens to how many a `PatchEncoder` or None adds of each."""
    if encoder is None:
        return dict.fromkeys(PREFIX, 0)
    counts = (int(encoder.class_token), int(encoder.distillation_token), encoder.num_registers)
    return dict(zip(PREFIX, counts))


def depth(path, num_blocks):
    """Returns how deep a layer or variable lies, as layer-wise learning-rate decay counts it.

    As in timm: 0 for the patch embedding, the prefix tokens, the positions and the norm before the blocks;
    i + 1 for block i; `num_blocks` for the final norm, as for the last block; `num_blocks + 1` for all that
    follows: pooling, the norm after it, heads.

    Args:
        path: of a layer or a variable, such as "block_0/attention/qkv/kernel".
        num_blocks: int, the number of blocks of the model.

    Reference: Bao et al., "BEiT" (https://arxiv.org/abs/2106.08254); timm 1.0.31,
    `optim/_param_groups.py` and `VisionTransformer.group_matcher`. BEiT's own code counts the final norm to
    the head.
    """
    layer = path.partition("/")[0]
    if layer in BEFORE_BLOCKS:
        return 0
    if layer == NORMS["final"]:
        return num_blocks
    index = block_index(path)
    return num_blocks + 1 if index is None else index + 1


def block_index(path):
    """Returns i for a layer block_i or a path inside of it; None for others."""
    block = re.match(r"block_(\d+)(/|$)", path)
    return int(block[1]) if block else None


def flat_layers(model):
    """Yields the layers of a model, and of the models among them."""
    for layer in getattr(model, "layers", []):
        yield from flat_layers(layer) if isinstance(layer, keras.Model) else [layer]


def first_of(parts, kinds):
    """Returns the first layer of some classes, or None."""
    return next((layer for layer in parts if isinstance(layer, kinds)), None)


def rgb_size(model):
    """Returns (height, width) of the RGB images that a functional model takes.

    Raises:
        ValueError: the model has no graph, or takes something other than RGB images of one size.
    """
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ValueError(
            f"{type(model).__name__} {model.name!r} has no graph of layers: give a functional model"
        )
    shapes = [tuple(x.shape) for x in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or None in shapes[0][1:] or shapes[0][3] != 3:
        raise ValueError(
            f"{model.name!r} must take images (b, h, w, 3) of one size, got {shown(shapes)}: "
            "`vit_tf.resize_model` gives a model of build_vit one size"
        )
    return shapes[0][1:3]


def hint(model):
    """Returns the end of a message, which points to a model inside `model`; "" if there is none."""
    if isinstance(getattr(model, "model", None), keras.Model):
        return ", here its `model`"
    inside = any(isinstance(layer, keras.Model) for layer in getattr(model, "layers", []))
    return " itself, here `model.get_layer(NAME)`" if inside else ""
