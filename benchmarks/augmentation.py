"""vit_tf's augmentation layers against Keras's, inside the graph of one training step.

    python benchmarks/augmentation.py

For each transform the two layers alternate in one process on the same 256 images. The table has the median
milliseconds per batch, the 10th to 90th percentile, and the ratio. Keras's
layers for colours and erasing compute something else: see the docstring of `vit_tf.data.augment.batch`.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from vit_tf.data.augment import batch as augment

ROUNDS, WARM_UP = 30, 3

TRANSFORMS = {
    "flip, 32x32": (32, augment.RandomFlip(), keras.layers.RandomFlip("horizontal")),
    "shift by 4 pixels, 32x32": (
        32,
        augment.RandomCrop(4),
        keras.layers.RandomTranslation(4 / 32, 4 / 32, fill_mode="reflect", interpolation="nearest"),
    ),
    "rotate and zoom, 72x72": (
        72,
        augment.RandomAffine(rotation=0.02, zoom=0.2),
        keras.Sequential([keras.layers.RandomRotation(0.02), keras.layers.RandomZoom(0.2, 0.2)]),
    ),
    "brightness, contrast, saturation, 32x32": (
        32,
        augment.RandomColor(0.4),
        keras.layers.RandomColorJitter((0, 255), 0.4, 0.4, saturation_factor=(0.3, 0.7)),
    ),
    "erasing, 32x32": (32, augment.RandomErasing(0.25), keras.layers.RandomErasing((0.25, 0.25))),
}


def timed(step, images):
    start = time.perf_counter()
    step(images).numpy()
    return 1000 * (time.perf_counter() - start)


def main():
    table = Table("batch of 256", "vit_tf, ms", "Keras, ms", "ratio")
    for name, (size, *layers) in TRANSFORMS.items():
        images = tf.constant(np.random.default_rng(0).random((256, size, size, 3), "float32"))
        steps = [
            tf.function(lambda x, layer=layer: tf.reduce_mean(layer(x, training=True))) for layer in layers
        ]
        rounds = [[timed(step, images) for step in steps] for _ in range(WARM_UP + ROUNDS)][WARM_UP:]
        medians, cells = [], []
        for times in zip(*rounds):
            deciles = statistics.quantiles(times, n=10)
            medians.append(statistics.median(times))
            cells.append(f"{medians[-1]:.1f} ({deciles[0]:.1f} to {deciles[-1]:.1f})")
        table.add_row(name, *cells, f"{medians[1] / medians[0]:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
