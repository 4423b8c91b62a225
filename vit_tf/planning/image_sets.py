"""The table of data sets: how many images train, and the bytes of an average file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSet:
    """A set of images.

    Args:
        images: int, training images.
        image_bytes: average size of a file.
    """

    images: int
    image_bytes: float


IMAGE_SETS = {
    "cifar10": ImageSet(50_000, 3073),  # the binary version: a label and 3 x 32 x 32 bytes
    "cifar100": ImageSet(50_000, 3074),  # two labels
    "imagenet1k": ImageSet(1_281_167, 115e3),  # ILSVRC2012_img_train.tar has 147.9 GB
    # Winter 2021. timm/imagenet-w21-webp-wds on the hub: 645.65 GB, "~56 %" of the JPEG files.
    "imagenet21k": ImageSet(13_151_276, 88e3),
}

# docs/results/loading.md: 588 images/s on two cores with RandAugment, erasing, MixUp and CutMix, from JPEG
# files of 500 x 375 pixels, which is about ImageNet's average; 928 where decoding takes no time.
IMAGES_PER_CORE, MOST_IMAGES_PER_CORE = 294, 464


def images_per_core(image_bytes):
    """Returns how many images of a file size a CPU core decodes and augments per second.

    The time of decoding is taken as proportional to the size of the file, that of the augmentation as
    constant.
    """
    augmentation = 1 / MOST_IMAGES_PER_CORE
    decoding = 1 / IMAGES_PER_CORE - augmentation
    return 1 / (augmentation + decoding * image_bytes / IMAGE_SETS["imagenet1k"].image_bytes)
