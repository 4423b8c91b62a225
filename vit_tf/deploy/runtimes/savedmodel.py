"""TensorFlow's SavedModel."""

from vit_tf.deploy.runtimes.interface import FileRuntime


class SavedModelRuntime(FileRuntime):
    """The signature "serving_default" of a SavedModel, which several threads may call: see `FileRuntime`.

    Outputs are taken by name. The number of threads is that of the first SavedModel of the process, and has
    no effect if TensorFlow has started before.
    """

    name = "savedmodel"

    def open(self, path, threads):
        limit_threads(threads)
        import tensorflow as tf

        self.model = tf.saved_model.load(str(path.parent))  # the signature alone does not keep the weights
        self.function = self.model.signatures["serving_default"]
        self.constant = tf.constant
        return self.function.structured_input_signature[1], self.function.structured_outputs

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
