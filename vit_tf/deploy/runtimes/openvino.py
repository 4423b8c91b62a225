"""OpenVINO, on the processor. It reads ONNX files, too."""

from collections import deque

from vit_tf.deploy.runtimes.interface import FileRuntime

# OpenVINO computes in bfloat16 by default where the processor has it: the hint is always set.
PRECISION_HINTS = {"float32": "f32", "float16": "f32", "bfloat16": "bf16", "int8": "f32"}


class OpenVinoRuntime(FileRuntime):
    """A compiled model.xml or model.onnx with an infer request per thread that uses it: see `FileRuntime`.

    The manifest's `precision` sets that of the computation: float32 for "float16" weights, because "f16"
    means bfloat16 on a processor without float16. In the layers of an "int8" model that are not quantized, it
    is the "float_precision" of `quantization`, or float32.
    """

    name = "openvino"

    def open(self, path, threads):
        import openvino

        manifest = self.signature
        precision = (manifest.quantization or {}).get("float_precision", manifest.precision)
        hints = {
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",  # all threads work on one batch
            "INFERENCE_NUM_THREADS": threads,
        }
        core = openvino.Core()
        self.model = core.compile_model(core.read_model(path), "CPU", hints)
        self.requests = deque()  # that no thread uses: `pop` and `append` need no lock
        return (
            [name for value in self.model.inputs for name in value.names],
            [name for value in self.model.outputs for name in value.names],
        )

    def compute(self, images):
        try:
            request = self.requests.pop()
        except IndexError:
            request = self.model.create_infer_request()
        try:
            results = request.infer({self.signature.input_name: images}, share_inputs=True)
            return [results[name] for name in self.signature.output_names]
        finally:
            self.requests.append(request)
