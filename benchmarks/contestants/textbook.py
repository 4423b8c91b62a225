"""A ViT as one writes it from the paper with Keras's own layers, and no thought of speed."""

import keras
from keras import layers, ops

from contestants.keras_models import built, set_precision


class Patches(layers.Layer):
    """Cuts images `(b, h, w, c)` into patches `(b, n, p * p * c)`."""

    def __init__(self, patch_size, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size

    def call(self, images):
        cut = ops.image.extract_patches(images, self.patch_size)
        return ops.reshape(cut, (-1, cut.shape[1] * cut.shape[2], cut.shape[3]))


class ClassTokenAndPositions(layers.Layer):
    """Puts a learned token before `(b, n, d)` and adds learned positions: `(b, 1 + n, d)`."""

    def build(self, input_shape):
        _, n, d = input_shape
        self.class_token = self.add_weight(shape=(1, 1, d), initializer="zeros", name="class_token")
        self.positions = self.add_weight(shape=(1, 1 + n, d), initializer="random_normal", name="positions")

    def call(self, tokens):
        first = ops.broadcast_to(self.class_token, (ops.shape(tokens)[0], 1, tokens.shape[2]))
        return ops.concatenate([ops.cast(first, tokens.dtype), tokens], axis=1) + self.positions


def build(job, xla=False):
    set_precision(job)
    size = job.dimensions
    images = keras.Input((job.image_size, job.image_size, 3))
    x = Patches(size.patch_size)(images)
    x = layers.Dense(size.hidden_dim)(x)
    x = ClassTokenAndPositions()(x)
    for _ in range(size.num_layers):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.MultiHeadAttention(size.num_heads, size.hidden_dim // size.num_heads)(y, y)
        x = layers.Add()([x, y])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.Dense(size.mlp_dim, activation="gelu")(y)
        y = layers.Dense(size.hidden_dim)(y)
        x = layers.Add()([x, y])
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return built(keras.Model(images, layers.Dense(size.num_classes)(x[:, 0])), job, xla)
