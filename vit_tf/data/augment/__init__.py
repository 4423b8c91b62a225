"""Augmentation: of single images with Pillow, of batches as Keras layers, and mixing of batches.

`image` and `randaugment` run in the threads of a `DataLoader`, on images of any size. `batch` runs inside the
training step, on the device. `mixing` has MixUp and CutMix for both. `vit_tf.training.augmentation`
says which of them a recipe uses, and where each runs.
`RandomErasing` here is the layer; `vit_tf.data.augment.image.RandomErasing` erases in single images.
"""

from typing import TYPE_CHECKING

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.data.augment.batch import (
        RandomAffine,
        RandomColor,
        RandomCrop,
        RandomErasing,
        RandomFlip,
        Resize,
    )
    from vit_tf.data.augment.image import Compose, EvalTransform, HorizontalFlip, RandomResizedCrop
    from vit_tf.data.augment.mixing import CutMix, MixUp, MixUpCutMix
    from vit_tf.data.augment.randaugment import RandAugment

__all__ = [
    "Compose",
    "CutMix",
    "EvalTransform",
    "HorizontalFlip",
    "MixUp",
    "MixUpCutMix",
    "RandAugment",
    "RandomAffine",
    "RandomColor",
    "RandomCrop",
    "RandomErasing",
    "RandomFlip",
    "RandomResizedCrop",
    "Resize",
]
__getattr__, __dir__ = lazy_exports(__name__)
