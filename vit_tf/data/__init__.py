"""Data sets: finding, checking, splitting and decoding images, and loading them in batches."""

from typing import TYPE_CHECKING

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.data.augment.image import EvalTransform
    from vit_tf.data.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES, SAMPLE_NOTE, SAMPLE_PATH, load_cifar
    from vit_tf.data.decoded_images import CachedImages, DecodedImages
    from vit_tf.data.directory_layout import SPLITS
    from vit_tf.data.image_checks import check_images
    from vit_tf.data.image_data import ImageData
    from vit_tf.data.image_files import ImageFiles, find_images
    from vit_tf.data.loader import DataLoader
    from vit_tf.data.shards.shard_writing import WrittenShards, write_shards
    from vit_tf.data.splits import read_split, split_files, stratified_split, write_split

__all__ = [
    "CIFAR100_CLASSES",
    "CIFAR10_CLASSES",
    "SAMPLE_NOTE",
    "SAMPLE_PATH",
    "SPLITS",
    "DataLoader",
    "CachedImages",
    "EvalTransform",
    "ImageData",
    "ImageFiles",
    "DecodedImages",
    "WrittenShards",
    "check_images",
    "find_images",
    "load_cifar",
    "read_split",
    "split_files",
    "stratified_split",
    "write_shards",
    "write_split",
]
__getattr__, __dir__ = lazy_exports(__name__)
