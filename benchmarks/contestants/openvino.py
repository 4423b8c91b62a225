"""OpenVINO on a CPU, with timm's model or this project's and a hint for the precision."""

import tempfile
from pathlib import Path

import numpy as np
import openvino

from contestants import Built, convert

HINTS = {"float32": "f32", "bfloat16": "bf16"}


def build(job, exported=False):
    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        parameters = convert.write(job, path, exported)
        settings = {"INFERENCE_PRECISION_HINT": HINTS[job.precision], "PERFORMANCE_HINT": "LATENCY"}
        compiled = core.compile_model(path, "CPU", settings)
    return Built(lambda b: make_step(compiled, convert.shape(job, b, exported)), parameters)


def make_step(compiled, shape):
    images = np.random.default_rng(0).normal(size=shape)
    images, request = images.astype("float32"), compiled.create_infer_request()
    return lambda: request.infer([images], share_inputs=True)[0]
