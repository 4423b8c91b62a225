"""A small data set whose pixels name their image, and the settings of a loader."""

import time

import numpy as np
import pytest

from vit_tf.data.augment.image import Compose, HorizontalFlip, RandomResizedCrop
from vit_tf.data.augment.mixing import MixUpCutMix
from vit_tf.data.loader import DataLoader

COUNT, CLASSES, BATCH = 29, 4, 6  # the last batch has five images


LABELS = np.arange(COUNT) % CLASSES


def images():
    """Every pixel of image i has a value that is i in its last five bits."""
    noise = np.random.default_rng(0).integers(0, 8, (COUNT, 6, 8, 3))
    return (noise * 32 + np.arange(COUNT)[:, None, None, None]).astype("uint8")


def shuffled_in_time(image, generator):
    """A transform whose calls end in another order than they begin."""
    time.sleep(generator.uniform(0, 0.002))
    return image


AUGMENT = Compose([RandomResizedCrop((6, 8)), HorizontalFlip()])


def augmented(image, generator):
    return shuffled_in_time(AUGMENT(image, generator), generator)


def batches(transform=None, mix=None, shuffle=True, seed=5, num_threads=3, batch_size=BATCH):
    return DataLoader(images(), LABELS, CLASSES, batch_size, transform, mix, shuffle, seed, num_threads)


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second):
        for x, y in zip(one, other, strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


SETTINGS = {
    "augmented and mixed": {"transform": augmented, "mix": MixUpCutMix()},
    "array": {},
    "array, mixed": {"mix": MixUpCutMix()},
    "ordered": {"transform": augmented, "shuffle": False},
}


each_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
