"""OpenVINO, on the processor. It reads ONNX files, too."""

from collections import deque

from vit_tf.deploy.runtimes.interface import Runtime

# OpenVINO computes in bfloat16 by default where the processor has it: the hint is always set.
PRECISION_HINTS = {"float32": "f32", "float16": "f32", "bfloat16": "bf16", "int8": "f32"}


class OpenVinoRuntime(Runtime):
    """A compiled model with as many infer requests as threads use it at once: see `Runtime`.

    Args:
        path: of model.xml or model.onnx.
        manifest: its `Manifest`. Its `precision` sets that of the computation: float32 for "float16"
            weights, because "f16" means bfloat16 on a processor without float16. In the layers of an "int8"
            model that are not quantized, it is the "float_precision" of `quantization`, or float32.
        threads: int, the number of threads that compute.
    """

    name = "openvino"

    def __init__(self, path, manifest, threads):
        import openvino

        super().__init__(manifest)
        precision = (manifest.quantization or {}).get("float_precision", manifest.precision)
        hints = {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",  # all threads work on one batch
            "INFERENCE_NUM_THREADS": threads,
        }
        core = openvino.Core()
        self.model = core.compile_model(core.read_model(path), "CPU", hints)
        ends = (self.model.inputs, self.model.outputs)
        self.require_names(*([name for value in values for name in value.names] for values in ends))
        self.outputs = [self.model.output(name) for name in manifest.output_names]
        self.input = self.model.input(manifest.input_name)
        self.requests = deque()  # that no thread uses: `pop` and `append` need no lock

    def compute(self, images):
        try:
            request = self.requests.pop()
        except IndexError:
            request = self.model.create_infer_request()
        try:
            results = request.infer({self.input: images}, share_inputs=True)
            return [results[output] for output in self.outputs]
        finally:
            self.requests.append(request)
