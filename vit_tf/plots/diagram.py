"""`model_diagram`: the stages of a model from image to classes, with their output shapes and costs."""

from dataclasses import dataclass
from typing import Any

import keras
from matplotlib.patches import FancyBboxPatch

from vit_tf import layers
from vit_tf.flops.count import check_arguments, count_inside, input_shape
from vit_tf.plots.style import BLUE, GREEN, INK, ORANGE, Figure, printable_text, styled
from vit_tf.structure import HEADS, ViTStructure

WIDTH, BOX = 10.0, 4.6  # of the figure and of a box, in the units of the axes
COLUMNS = {"output": 6.1, "parameters": 7.9, "MACs": 9.7}  # x of their right ends
KINDS = {"pixels": "#777777", "tokens": BLUE, "blocks": ORANGE, "head": GREEN}
FOLDED = (  # layers that have no box of their own: they count for the box before
    "position_dropout",
    "patch_norm",
    "distillation_pooling",
    "distillation_head",
    "average",
    "probabilities",
    "distillation_probabilities",
)
WIRING = {
    layers.EncoderBlock: "x + attention(norm(x)), then x + MLP(norm(x))",
    layers.ResPostBlock: "x + norm(attention(x)), then x + norm(MLP(x))",
    layers.ParallelThingsBlock: "x + attentions(norms(x)), then x + MLPs(norms(x))",
    layers.ParallelScalingBlock: "x + attention(norm(x)) + MLP(norm(x))",
}


@dataclass
class Stage:
    """A box of the diagram: consecutive layers, or consecutive blocks with the same configuration."""

    name: str
    details: tuple
    kind: str
    shape: tuple
    parameters: int
    macs: int

    def add(self, shape, parameters, macs):
        """Adds a layer with this output shape to the box."""
        self.shape = shape
        self.parameters += parameters
        self.macs += macs


@styled
def model_diagram(model: keras.Model, title: str | None = None, image_size: Any = None) -> Figure:
    """Draws the stages of a model with their output shapes, parameters and MACs for one image.

    Consecutive blocks with the same configuration share a box. A bar shows each stage's share of all MACs.

    Args:
        model: a model of `build_vit`, or a functional model that extends one.
        title: str. Defaults to the name of the model.
        image_size: int or (height, width) in pixels; needed if the model takes images of any size.

    Raises:
        ValueError: `model` is another model, or `image_size` is missing or differs from the model's.
    """
    stages = model_stages(model, image_size)
    heights = [0.62 + 0.24 * len(stage.details) for stage in stages]
    gap, top = 0.3, 0.55
    total = top + sum(heights) + gap * (len(stages) - 1) + 0.75
    figure = Figure(figsize=(8.4, 0.84 * total), layout="constrained")
    figure.suptitle(printable_text(title or model.name), fontsize=11)
    axes = figure.subplots()
    axes.set(xlim=(-0.05, WIDTH), ylim=(total, 0))
    axes.set_axis_off()
    for name, x in COLUMNS.items():
        axes.text(x, 0.3, name, ha="right", va="center", color="#666666")
    all_macs = max(1, sum(stage.macs for stage in stages))
    y = top
    for i, (stage, height) in enumerate(zip(stages, heights)):
        draw_stage(axes, stage, y, height, stage.macs / all_macs)
        y += height
        if i < len(stages) - 1:
            arrow = dict(arrowstyle="-|>", color="#888888", shrinkA=0, shrinkB=0)
            axes.annotate("", (BOX / 2, y + gap), (BOX / 2, y), arrowprops=arrow)
            y += gap
    sums = {"parameters": sum(stage.parameters for stage in stages), "MACs": all_macs}
    axes.plot([BOX + 0.3, COLUMNS["MACs"]], [y + 0.2] * 2, color="#888888", linewidth=0.8)
    axes.text(COLUMNS["output"], y + 0.45, "total", ha="right", va="center")
    for name, value in sums.items():
        axes.text(COLUMNS[name], y + 0.45, f"{value:,}", ha="right", va="center", fontweight="bold")
    return figure


def draw_stage(axes, stage, y, height, share):
    color = KINDS[stage.kind]
    style = dict(boxstyle="round,pad=0,rounding_size=0.09", linewidth=1.3)
    axes.add_patch(FancyBboxPatch((0, y), BOX, height, facecolor=color + "18", edgecolor=color, **style))
    axes.text(0.18, y + 0.31, stage.name, va="center", color=INK, fontweight="bold")
    for i, line in enumerate(stage.details):
        axes.text(0.18, y + 0.6 + 0.24 * i, line, va="center", color=INK, fontsize=7.5)
    middle = y + height / 2
    values = (" × ".join(map(str, stage.shape)), f"{stage.parameters:,}", f"{stage.macs:,}")
    for x, value in zip(COLUMNS.values(), values):
        axes.text(x, middle, value, ha="right", va="center")
    if share:
        width = COLUMNS["MACs"] - COLUMNS["parameters"] - 0.25
        right = COLUMNS["MACs"]
        axes.barh(middle + 0.24, -share * width, 0.07, left=right, color=color)


def model_stages(model, image_size=None):
    """Returns the stages of a model, see `model_diagram`."""
    check_arguments(model, 1)
    sides = input_shape(model, image_size)
    structure = ViTStructure(model, image_size=sides[:2])
    stages, first, last = [], None, None  # the blocks of the last stage
    for layer, rows, shape in count_inside(model, (1, *sides)):
        cost = [sum(row.parameters for row in rows), sum(row.macs for row in rows)]
        is_block = layer.name in structure.blocks
        if is_block and first and same_configuration(layer, last):
            stages[-1].add(shape, *cost)
            stages[-1].name = f"{first.name} to {layer.name}"
            last = layer
        elif layer.name in FOLDED:
            stages[-1].add(shape, *cost)
        else:
            first = last = layer if is_block else None
            stages.append(Stage(*describe(layer, structure), shape, *cost))
    return stages


def same_configuration(block, other):
    """Whether two blocks differ only in their name, position and rate of drop path."""

    def configuration(layer):
        own = ("name", "block_index", "drop_path_rate")
        return type(layer), {key: value for key, value in layer.get_config().items() if key not in own}

    return configuration(block) == configuration(other)


def describe(layer, structure):
    """Returns name, details and kind of the stage that begins with a layer."""
    size = "×".join(map(str, structure.patch_size))
    distilled = "distillation_token" in structure.token_slices
    if isinstance(layer, keras.layers.InputLayer):
        return "images", (), "pixels"
    if layer is structure.normalization:
        return "normalisation", (), "pixels"
    if isinstance(layer, layers.Patches):
        return "patches", (f"{size} pixels each",), "tokens"
    if layer is structure.patch_embedding:
        kinds = {
            layers.WhitenedPatchEmbedding: "convolutions of whitened pixels",
            layers.PooledPatchEmbedding: "convolutions and pooling of whitened pixels",
            layers.OverlapPatchEmbedding: "convolutions",
            layers.PatchEmbedding: "a convolution",
            layers.ResNetEmbedding: "a residual network",
            layers.MobileCLIPEmbedding: "convolutions",
        }
        how = kinds.get(type(layer), "a dense layer")
        return "patch embedding", (f"{how}, one token per {size} pixels",), "tokens"
    if layer is structure.patch_encoder:
        return "tokens and positions", (token_details(layer, structure.grid_size),), "tokens"
    if layer.name in structure.blocks:
        return layer.name, block_details(layer), "blocks"
    if layer is structure.norms.get("final"):
        return "norm", (), "blocks"
    if layer in structure.poolings:
        kind = getattr(layer, "pooling", "attention")
        how = {"token": "the class token", "avg": "the average of the patches"}.get(kind, kind)
        return "pooling", (f"{how}, and the distillation token" if distilled else how,), "head"
    if layer.name == HEADS[0]:
        return "head", ("one per token",) if distilled else (), "head"
    order = structure.layers
    behind_pooling = structure.pooling is not None and order.index(layer) > order.index(structure.pooling)
    return layer.name.replace("_", " "), (), "head" if behind_pooling else "tokens"


def token_details(encoder, grid_size):
    parts = ["class token"] * encoder.class_token + ["distillation token"] * encoder.distillation_token
    if encoder.num_registers:
        parts.append(f"{encoder.num_registers} register{'s' * (encoder.num_registers > 1)}")
    rows, columns = grid_size
    return ", ".join([*parts, f"{rows}×{columns} patches"])


def block_details(block):
    config = block.config
    attention = block.attention_layers()[0].core_attention
    side_by_side = len(block.attention_layers())
    times = f"{side_by_side} × " if side_by_side > 1 else ""
    kind = "" if config.attention == "softmax" else f"{config.attention} "
    kind += "rotary " * (config.rotary is not None)
    kind += "relative " * config.relative_positions
    activation = keras.activations.serialize(config.activation)
    activation = activation if isinstance(activation, str) else activation["config"]
    shared = f", {attention.num_kv_heads} of keys and values" if attention.num_groups > 1 else ""
    mlp = {"mlp": "MLP"}.get(config.mlp, "SwiGLU")
    return (
        WIRING[type(block)],
        f"{times}{kind}attention: {config.num_heads} heads of {attention.head_width}{shared}",
        f"{times}{mlp}: {config.mlp_dim:,} inner values" + (f", {activation}" if mlp == "MLP" else ""),
    )
