"""LiteRT, formerly TensorFlow Lite."""

from threading import Lock

from vit_tf.deploy.runtimes.interface import FileRuntime


class LiteRtRuntime(FileRuntime):
    """An interpreter of model.tflite, which one thread at a time uses: see `FileRuntime`.

    Outputs are taken by the names in the file's signature, because their positions may be swapped.
    """

    name = "litert"

    def open(self, path, threads):
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self.runner = self.interpreter.get_signature_runner()
        self.lock = Lock()
        return self.runner.get_input_details(), self.runner.get_output_details()

    def compute(self, images):
        with self.lock:
            outputs = self.runner(**{self.signature.input_name: images})
        return [outputs[name] for name in self.signature.output_names]
