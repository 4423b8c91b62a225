"""ONNX Runtime on a CPU, with timm's model or this project's."""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from contestants import Built, convert


def build(job, exported=False):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        parameters = convert.write(job, path, exported)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def make_step(batch_size):
        images = np.random.default_rng(0).normal(size=convert.shape(job, batch_size, exported))
        feed = {session.get_inputs()[0].name: images.astype("float32")}
        return lambda: session.run(None, feed)[0]

    return Built(make_step, parameters)
