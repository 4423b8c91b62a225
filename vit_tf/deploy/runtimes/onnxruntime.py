"""ONNX Runtime, on the processor."""

from vit_tf.deploy.runtimes.interface import Runtime


class OnnxRuntime(Runtime):
    """A session, which several threads may use at once: see `Runtime`.

    Args:
        path: of model.onnx.
        manifest: its `Manifest`.
        threads: int, the number of threads that compute.
    """

    name = "onnxruntime"

    def __init__(self, path, manifest, threads):
        import onnxruntime

        super().__init__(manifest)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors alone
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        ends = (self.session.get_inputs(), self.session.get_outputs())
        self.require_names(*([value.name for value in values] for values in ends))

    def compute(self, images):
        return self.session.run(list(self.signature.output_names), {self.signature.input_name: images})
