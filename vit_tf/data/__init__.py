"""Data sets in, batches out."""

from vit_tf.data.cifar10 import CIFAR10_CLASSES, SAMPLE_NOTE, SAMPLE_PATH, ImageData, load_cifar10
from vit_tf.data.image_files import ImageFiles, check_images, find_images
from vit_tf.data.layouts import SPLITS
from vit_tf.data.pipeline import Batches, CachedPictures, Pictures
from vit_tf.data.splits import read_split, split_files, stratified_split, write_split
from vit_tf.data.transforms import Fit

__all__ = [
    "CIFAR10_CLASSES",
    "SAMPLE_NOTE",
    "SAMPLE_PATH",
    "SPLITS",
    "Batches",
    "CachedPictures",
    "Fit",
    "ImageData",
    "ImageFiles",
    "Pictures",
    "check_images",
    "find_images",
    "load_cifar10",
    "read_split",
    "split_files",
    "stratified_split",
    "write_split",
]
