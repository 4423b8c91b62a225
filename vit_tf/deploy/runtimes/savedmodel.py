"""TensorFlow's SavedModel."""

from vit_tf.deploy.runtimes.interface import Runtime


class SavedModelRuntime(Runtime):
    """The signature "serving_default" of a SavedModel, which several threads may call: see `Runtime`.

    Args:
        path: of saved_model.pb.
        manifest: its `Manifest`. Outputs are taken by name.
        threads: int, the number of threads that compute, if TensorFlow has not started yet.
    """

    name = "savedmodel"

    def __init__(self, path, manifest, threads):
        super().__init__(manifest)
        limit_threads(threads)
        import tensorflow as tf

        self.model = tf.saved_model.load(str(path.parent))  # the signature alone does not keep the weights
        self.function = self.model.signatures["serving_default"]
        self.require_names(self.function.structured_input_signature[1], self.function.structured_outputs)
        self.constant = tf.constant

    def compute(self, images):
        outputs = self.function(**{self.signature.input_name: self.constant(images)})
        return [outputs[name].numpy() for name in self.signature.output_names]


def limit_threads(threads):
    """Sets TensorFlow's number of threads, which is fixed once it has started."""
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        pass
