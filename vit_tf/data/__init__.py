"""Data sets in, batches out."""

from vit_tf.data.cifar10 import CIFAR10_CLASSES, SAMPLE_NOTE, SAMPLE_PATH, ImageData, load_cifar10
from vit_tf.data.splits import stratified_split

__all__ = [
    "CIFAR10_CLASSES",
    "SAMPLE_NOTE",
    "SAMPLE_PATH",
    "ImageData",
    "load_cifar10",
    "stratified_split",
]
