"""ONNX Runtime: its quantizer for matrix products, with calibrated scales or those of each batch."""

import logging
from contextlib import contextmanager

from vit_tf.deploy.quantizers.candidates import PRODUCTS, STEM, Candidate, Layer

BATCH_SIZE = 10  # of calibration
LARGEST_FILE = 1 << 30  # bytes; protobuf's limit is twice as high
REASONS = {"convolution": STEM, "attention": PRODUCTS}
DENSE = {"static": True, "attention": False, "convolutions": False}
CANDIDATES = (
    Candidate("static, per channel", DENSE, REASONS),
    Candidate("static, per channel, attention too", DENSE | {"attention": True}, REASONS),
    Candidate("static, per channel, convolutions too", DENSE | {"convolutions": True}, REASONS),
    Candidate("dynamic, per channel", DENSE | {"static": False}, REASONS),
)
KINDS = {"MatMul": "dense", "Gemm": "dense", "Conv": "convolution", "Attention": "attention"}
INTEGER = ("MatMulInteger", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm")


def write(candidate, subject, source, images, path):
    """See `vit_tf.deploy.quantizers`."""
    import onnx
    from onnxruntime import quantization

    graph = onnx.load(source / path.name, load_external_data=False).graph
    is_large = sum(file.stat().st_size for file in source.iterdir()) > LARGEST_FILE
    keeps_attention = not candidate.settings["attention"]
    options = dict(
        op_types_to_quantize=["MatMul", "Gemm", *(["Conv"] if candidate.settings["convolutions"] else [])],
        nodes_to_exclude=attention_products(graph) if keeps_attention else [],
        per_channel=True,
        use_external_data_format=is_large,
        weight_type=quantization.QuantType.QInt8,
    )
    with quiet_logging():
        if candidate.settings["static"]:
            unsigned = quantization.QuantType.QUInt8
            batches = reader(graph.input[0].name, images)
            quantization.quantize_static(
                source / path.name, path, batches, activation_type=unsigned, **options
            )
        else:
            quantization.quantize_dynamic(source / path.name, path, **options)


def attention_products(graph):
    """Returns the names of the matrix products without weights."""
    constants = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and constants.isdisjoint(node.input)]


def reader(input_name, images):
    """Returns the images as ONNX Runtime's calibration reads them."""
    from onnxruntime.quantization import CalibrationDataReader

    batches = iter([{input_name: images[i : i + BATCH_SIZE]} for i in range(0, len(images), BATCH_SIZE)])

    class Reader(CalibrationDataReader):
        def get_next(self):
            return next(batches, None)

    return Reader()


@contextmanager
def quiet_logging():
    """A scope without the advice that the quantizer logs."""

    def is_error(record):
        return record.levelno >= logging.ERROR

    logging.root.addFilter(is_error)
    try:
        yield
    finally:
        logging.root.removeFilter(is_error)


def layers(path):
    """See `vit_tf.deploy.quantizers`."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}

    def is_constant(name):
        maker = makers.get(name)
        return name in constants or (
            maker is not None and maker.op_type == "DequantizeLinear" and is_constant(maker.input[0])
        )

    def is_dequantized(name):
        return name in makers and makers[name].op_type == "DequantizeLinear"

    found = []
    for node in graph.node:
        if node.op_type in INTEGER:
            name = node.name.removesuffix("_quant")
            found.append(Layer(name, "dense" if is_constant(node.input[1]) else "attention", True))
        elif kind := KINDS.get(node.op_type):
            if kind == "dense" and not is_constant(node.input[1]):
                kind = "attention"
            found.append(Layer(node.name, kind, is_dequantized(node.input[1])))
    return found
