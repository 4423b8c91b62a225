"""ONNX files, run by ONNX Runtime and by OpenVINO, on one thread."""

from functools import cache

import onnxruntime
import openvino


def run_onnx(path, **inputs):
    """Returns the outputs of ONNX Runtime, a list of arrays."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, inputs)


def run_onnx_by_openvino(path, **inputs):
    """Returns the outputs of OpenVINO, which computes in float32 here, a list of arrays."""
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = core().compile_model(core().read_model(path), "CPU", settings)
    return list(model(inputs).values())


@cache
def core():
    return openvino.Core()
