"""OpenVINO: NNCF's quantization of weights and activations, or of the weights alone."""

import io
import logging
from contextlib import redirect_stdout

from vit_tf.deploy.quantizers.candidates import PRODUCTS, STEM, Candidate, Layer

REASONS = {"convolution": STEM, "attention": PRODUCTS}
TRANSFORMER = {"model_type": "transformer", "convolutions": False}
CANDIDATES = (
    Candidate("weights and activations", TRANSFORMER | {"smooth_quant": -1}, REASONS, True),
    Candidate(
        "weights and activations, convolutions too",
        TRANSFORMER | {"smooth_quant": -1, "convolutions": True},
        REASONS,
        True,
    ),
    Candidate("SmoothQuant", TRANSFORMER | {"smooth_quant": 0.95}, REASONS, True),
    Candidate("weights alone", {"mode": "int8_asym", "convolutions": False}, REASONS, True),
)
KINDS = {
    "MatMul": "dense",
    "Convolution": "convolution",
    "GroupConvolution": "convolution",
    "ScaledDotProductAttention": "attention",
}
# Operators that leave int8 values as they are.
PASSING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Convert", "Multiply", "Subtract")


def write(candidate, subject, source, images, path):
    """See `vit_tf.deploy.quantizers`."""
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(source / path.name)
    types = [] if candidate.settings["convolutions"] else ["Convolution", "GroupConvolution"]
    ignored = nncf.IgnoredScope(types=types, validate=False)
    with redirect_stdout(io.StringIO()):  # NNCF draws progress bars
        model = quantized(nncf, model, candidate.settings, ignored, images)
    openvino.save_model(model, path, compress_to_fp16=False)


def quantized(nncf, model, settings, ignored, images):
    """Returns the OpenVINO model, quantized by the settings of a candidate."""
    if "mode" in settings:
        mode = nncf.CompressWeightsMode(settings["mode"])
        return nncf.compress_weights(model, mode=mode, ignored_scope=ignored)
    alphas = nncf.AdvancedSmoothQuantParameters(matmul=settings["smooth_quant"])
    return nncf.quantize(
        model,
        nncf.Dataset([images[i : i + 1] for i in range(len(images))]),
        model_type=nncf.ModelType(settings["model_type"]),
        subset_size=len(images),
        ignored_scope=ignored,
        advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=alphas),
    )


def has_bfloat16():
    """Whether the processor has instructions for bfloat16."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def layers(path):
    """See `vit_tf.deploy.quantizers`."""
    import openvino

    found = []
    for node in openvino.Core().read_model(path).get_ordered_ops():
        kind = KINDS.get(node.get_type_name())
        if kind is None:
            continue
        sources = [origin(node.input_value(i)) for i in range(2)]
        if kind == "dense" and not any(is_constant for is_constant, _ in sources):
            kind = "attention"
        is_quantized = any(is_int8 for is_constant, is_int8 in sources if is_constant or kind == "attention")
        found.append(Layer(node.get_friendly_name(), kind, is_quantized))
    return found


def origin(output):
    """Returns (whether a value is a constant, whether it is quantized), from what computes it."""
    is_quantized = False
    while True:
        node = output.get_node()
        name = node.get_type_name()
        is_quantized |= name == "FakeQuantize"
        if name == "Constant":
            return True, is_quantized or node.get_element_type().get_type_name() in ("i8", "u8")
        if name not in (*PASSING, "FakeQuantize"):
            return False, is_quantized
        output = node.input_value(0)
