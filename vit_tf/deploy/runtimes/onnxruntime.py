"""ONNX Runtime, on the processor."""

import numpy as np

from vit_tf.deploy.extras import require_modules
from vit_tf.deploy.runtimes.interface import FileRuntime


class OnnxRuntime(FileRuntime):
    """A session of model.onnx, which several threads may use at once: see `FileRuntime`."""

    name = "onnxruntime"

    def open(self, path, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors alone
        if self.signature.input_kind == "encoded":
            require_modules(["onnxruntime_extensions"], "encoded", "a model that takes encoded images")
            from onnxruntime_extensions import get_library_path

            options.register_custom_ops_library(get_library_path())
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return (
            [value.name for value in self.session.get_inputs()],
            [value.name for value in self.session.get_outputs()],
        )

    def compute(self, images):
        if self.signature.input_kind != "encoded":
            return self.run_session(images)
        results = [self.run_session(image) for image in images]  # the graph takes one file
        return [np.concatenate(parts) for parts in zip(*results)]

    def run_session(self, values):
        return self.session.run(list(self.signature.output_names), {self.signature.input_name: values})
