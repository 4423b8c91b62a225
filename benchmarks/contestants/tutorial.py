"""The Keras tutorial's ViT for CIFAR-10, trained by `fit`.

Written anew after https://keras.io/examples/vision/image_classification_with_vision_transformer/, with its
settings: everything is in the model, from normalising the 32x32 images on.
"""

import keras
import numpy as np
from keras import layers, ops

from contestants import Built
from contestants.keras_models import set_precision
from contestants.textbook import Patches

IMAGE_SIZE, PATCH_SIZE, DIM, NUM_LAYERS, NUM_HEADS = 72, 6, 64, 8, 4
MLP_UNITS, HEAD_UNITS, NUM_CLASSES = (128, 64), (2048, 1024), 10


class PatchEncoder(layers.Layer):
    """Projects patches `(b, n, p * p * c)` to tokens `(b, n, DIM)` and adds learned positions."""

    def build(self, input_shape):
        self.projection = layers.Dense(DIM)
        self.projection.build(input_shape)
        self.positions = layers.Embedding(input_shape[1], DIM)
        self.positions.build((1, input_shape[1]))

    def call(self, patches):
        indices = ops.expand_dims(ops.arange(patches.shape[1]), 0)
        return self.projection(patches) + self.positions(indices)


def mlp(x, units, dropout_rate):
    for width in units:
        x = layers.Dense(width, activation="gelu")(x)
        x = layers.Dropout(dropout_rate)(x)
    return x


def make_model(images):
    """Returns the model over `(b, 32, 32, 3)`; `images` tell it the mean and the deviation."""
    normalization = layers.Normalization()
    normalization.adapt(images)
    inputs = keras.Input(images.shape[1:])
    x = normalization(inputs)
    for layer in (
        layers.Resizing(IMAGE_SIZE, IMAGE_SIZE),
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.02),
        layers.RandomZoom(0.2, 0.2),
        Patches(PATCH_SIZE),
        PatchEncoder(),
    ):
        x = layer(x)
    for _ in range(NUM_LAYERS):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.MultiHeadAttention(NUM_HEADS, key_dim=DIM, dropout=0.1)(y, y)
        x = layers.Add()([y, x])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([mlp(y, MLP_UNITS, 0.1), x])
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(NUM_CLASSES)(mlp(x, HEAD_UNITS, 0.5)))


def random_data(count):
    """Returns uint8 images `(count, 32, 32, 3)` and labels, as CIFAR-10 has them."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 32, 32, 3), "uint8"), rng.integers(0, NUM_CLASSES, count)


def untuned_batches(images, labels, batch_size):
    """Returns shuffled batches for `fit`, which then does not wait at the end of an epoch.

    With NumPy arrays it would: `benchmarks/fit.py` shows how long, and these epochs have few batches.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images)).batch(batch_size)
    return dataset.prefetch(2).with_options(options)


def build(job):
    set_precision(job)
    images, labels = random_data(job.batches * max(job.batch_sizes))
    model = make_model(images)
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(5)],
    )

    def make_step(batch_size):
        count = job.batches * batch_size
        batches = untuned_batches(images[:count], labels[:count], batch_size)
        return lambda: model.fit(batches, shuffle=False, verbose=0) and None

    return Built(make_step, model.count_params())
