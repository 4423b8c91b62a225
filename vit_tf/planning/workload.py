"""What a model costs, as the few numbers that a plan needs."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from vit_tf.variants import get_variant

if TYPE_CHECKING:
    import keras

# Those whose matrices model-parallel layouts split. The MLP's second matrix ends with whole tokens again.
SPLIT = ("QKV", "projection", "MLP", "head")
MATRICES = ("QKV", "projection", "MLP")


@dataclass(frozen=True)
class Workload:
    """The cost of a model; activations are numbers per image, as `count_flops` counts them.

    Args:
        model: name of the variant.
        image_size: (height, width).
        forward_flops: FLOPs of a forward pass per image.
        parameters: int.
        split_parameters: int, those that model-parallel layouts split among devices.
        matrix_parameters: int, those of which Muon keeps one moment.
        num_heads, num_blocks: int.
        head_width: int.
        tokens: numbers in the tokens of an image, n * d.
        pixels: numbers in an image.
        scores: the scores and the softmax of all blocks.
        hidden: the inner values of all MLPs, before and after the activation.
        heads: queries, keys, values and weighted values of all blocks.
        whole: tokens after both branches, and normalised tokens, of all blocks.
        outside: patches, positions, head.
    """

    model: str
    image_size: tuple[int, int]
    forward_flops: float
    parameters: int
    split_parameters: int
    matrix_parameters: int
    num_heads: int
    num_blocks: int
    head_width: int
    tokens: int
    pixels: int
    scores: float
    hidden: float
    heads: float
    whole: float
    outside: float

    def parameters_per_device(self, degree: int = 1) -> float:
        """Returns the parameters that each of `degree` devices of a model-parallel layout holds."""
        return self.parameters - self.split_parameters + self.split_parameters / degree

    def training_flops(self, remat: bool = False) -> float:
        """Returns the FLOPs of a step per image: a backward pass costs two forward passes."""
        return (4 if remat else 3) * self.forward_flops


def measure_workload(variant: str, **hyperparameters: Any) -> Workload:
    """Counts a variant by `count_flops`, without making its weights. It needs Keras.

    Args:
        variant: name of a variant.
        **hyperparameters: overrides of its fields, such as `image_size`.
    """
    import keras

    from vit_tf.models import build_vit

    # Shapes are enough: without this flag the scope makes the weights when it ends.
    with keras.StatelessScope(initialize_variables=False):
        workload = describe(build_vit(variant, **hyperparameters), get_variant(variant, **hyperparameters))
    keras.utils.clear_session()  # forgets the variables that wait for their values
    return workload


def describe(model: "keras.Model", config) -> Workload:
    """Returns the `Workload` of a model of float32."""
    from vit_tf.flops import count_flops

    rows = {row.component: row for row in count_flops(model).rows}
    kept = {name: row.activation_bytes / 4 for name, row in rows.items()}
    tokens = prod(model.get_layer("block_0").output.shape[1:])
    ends = min(kept["MLP"], config.num_layers * tokens)  # the tokens after the MLPs
    return Workload(
        model=model.name,
        image_size=tuple(model.input_shape[1:3]),
        forward_flops=sum(row.flops for row in rows.values()),
        parameters=sum(row.parameters for row in rows.values()),
        split_parameters=sum(rows[name].parameters for name in SPLIT),
        matrix_parameters=sum(rows[name].parameters for name in MATRICES),
        num_heads=config.num_heads,
        num_blocks=config.num_layers,
        head_width=config.head_dim or config.hidden_dim // config.num_heads,
        tokens=tokens,
        pixels=prod(model.input_shape[1:]),
        scores=kept["attention scores"],
        hidden=kept["MLP"] - ends,
        heads=kept["QKV"] + kept["attention values"],
        whole=kept["projection"] + kept["norms"] + ends,
        outside=kept["patch embedding"] + kept["class token and positions"] + kept["head"],
    )
