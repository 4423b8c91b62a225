"""`Candidate`, settings of a quantization that are worth a try, and `Layer`, what became of a layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Why a layer stays in float.
STEM = "convolutions of the stem: int8 costs accuracy where channels differ in scale, as after whitening"
PRODUCTS = "attention: products of two activations, which these settings leave out"
NO_KERNEL = "the tool has no int8 form of this layer"


@dataclass(frozen=True)
class Candidate:
    """Settings of a quantization.

    Args:
        name: what the report calls them.
        settings: arguments of the runtime's own tool, plain values.
        reasons: dict from a kind of layer to the reason why such layers stay in float.
        half: bool, whether to try the layers in float in bfloat16, too, where the processor has it.
    """

    name: str
    settings: Mapping[str, Any]
    reasons: Mapping[str, str] = field(default_factory=dict)
    half: bool = False


@dataclass(frozen=True)
class Layer:
    """A layer of a quantized model that multiplies by a matrix.

    Args:
        name: of the layer or of the node in the graph.
        kind: "dense", "convolution" or "attention".
        is_quantized: bool, whether its weights, or the activations that it multiplies, are int8.
    """

    name: str
    kind: str
    is_quantized: bool


def float_layers(candidate: Candidate, layers: list[Layer]) -> list[dict[str, Any]]:
    """Returns what stayed in float, for the report: dicts with "kind", "reason" and "layers"."""
    kinds = dict.fromkeys(layer.kind for layer in layers if not layer.is_quantized)
    return [
        {
            "kind": kind,
            "reason": candidate.reasons.get(kind, NO_KERNEL),
            "layers": [layer.name for layer in layers if layer.kind == kind and not layer.is_quantized],
        }
        for kind in kinds
    ]
