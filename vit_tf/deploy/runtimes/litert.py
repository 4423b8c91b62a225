"""LiteRT, formerly TensorFlow Lite."""

from threading import Lock

from vit_tf.deploy.runtimes.interface import Runtime


class LiteRtRuntime(Runtime):
    """An interpreter, which one thread at a time uses: see `Runtime`.

    Outputs are taken by the names in the file's signature, because their positions may be swapped.

    Args:
        path: of model.tflite.
        manifest: its `Manifest`.
        threads: int, the number of threads that compute.
    """

    name = "litert"

    def __init__(self, path, manifest, threads):
        from ai_edge_litert.interpreter import Interpreter

        super().__init__(manifest)
        self.interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self.runner = self.interpreter.get_signature_runner()
        self.require_names(self.runner.get_input_details(), self.runner.get_output_details())
        self.lock = Lock()

    def compute(self, images):
        with self.lock:
            outputs = self.runner(**{self.signature.input_name: images})
        return [outputs[name] for name in self.signature.output_names]
