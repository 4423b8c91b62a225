"""How every Keras model here is run: the compiled function that users reach, on TensorFlow and on JAX."""

import keras
import numpy as np

from contestants import Built


def set_precision(job):
    """Sets the policy that the model is built with.

    Inference in bfloat16 has weights in bfloat16, too: "mixed_bfloat16" would cast all of them every call.
    """
    keras.utils.set_random_seed(0)
    half = "mixed_bfloat16" if job.kind in ("training", "tutorial") else "bfloat16"
    keras.config.set_dtype_policy(half if job.precision == "bfloat16" else "float32")


def built(model, job, xla=False, optimizer=None):
    """Returns the `Built` of a Keras model over images `(b, h, w, 3)` that gives logits `(b, k)`.

    It trains with its library's own AdamW, or with Keras's where that has none.
    """
    if job.kind == "training":
        model.compile(
            optimizer or keras.optimizers.AdamW(1e-4, weight_decay=0.05),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=xla or keras.backend.backend() == "jax",
        )
        model.optimizer.build(model.trainable_variables)
        return Built(lambda b: training_step(model, b), model.count_params())
    serve = jax_function(model) if keras.backend.backend() == "jax" else tensorflow_function(model, xla)
    return Built(lambda b: serve(random_images(model, b)), model.count_params())


def random_images(model, batch_size):
    return np.random.default_rng(0).normal(size=(batch_size, *model.input_shape[1:])).astype("float32")


def tensorflow_function(model, xla):
    import tensorflow as tf

    serve = tf.function(lambda images: model(images, training=False), jit_compile=xla)

    def with_images(images):
        images = tf.constant(images)
        return lambda: serve(images).numpy()

    return with_images


def jax_function(model):
    import jax

    @jax.jit
    def serve(trainable, others, images):
        return model.stateless_call(trainable, others, images, training=False)[0]

    weights = [
        [variable.value for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    def with_images(images):
        images = jax.numpy.asarray(images)
        return lambda: serve(*weights, images).block_until_ready()

    return with_images


def training_step(model, batch_size):
    images = random_images(model, batch_size)
    labels = np.random.default_rng(1).integers(0, model.output_shape[-1], batch_size)
    return lambda: model.train_on_batch(images, labels)
