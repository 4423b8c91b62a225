"""From a recipe to its augmentations, and where each runs.

| engine | single images | MixUp and CutMix | batches |
|---|---|---|---|
| train-batch | `image_augmentation` | `make_mix` | `batch_augmentation` |
| runs in | the threads of the loader | the loader | layers before the ViT |
| compiled-epoch | - | `make_mix` | `device_augmentation` |
| runs in | | the step, after the layers | layers at the start of the step |

With `crop` "pad" or "affine", train-batch flips, crops and erases whole batches, after they are mixed; with
other crops, single images, before they are mixed.
"""

import keras

from vit_tf.data.augment import batch
from vit_tf.data.augment.image import Compose, HorizontalFlip, RandomErasing, RandomResizedCrop
from vit_tf.data.augment.mixing import MixUpCutMix
from vit_tf.data.augment.randaugment import RandAugment


def image_augmentation(recipe, image_size, view=None):
    """Returns the augmentation of single images before they are batched, None for no augmentation.

    Args:
        recipe: a `Recipe`.
        image_size: (height, width) in pixels of the batches.
        view: the transform of evaluation, which gives images that size; None if they have it.
    """
    in_graph = recipe.crop in ("pad", "affine")
    if recipe.crop == "resized":
        steps = [RandomResizedCrop(image_size, scale=(recipe.crop_scale, 1.0))]
    else:
        steps = [view] if view else []
    if recipe.flip and not in_graph:
        steps.append(HorizontalFlip())
    if recipe.randaugment:
        steps.append(RandAugment(magnitude=recipe.randaugment))
    if recipe.random_erasing and not in_graph:
        steps.append(RandomErasing(recipe.random_erasing))
    return Compose(steps) if steps else None


def make_mix(recipe):
    """Returns the MixUp and CutMix of a recipe, None if it has neither."""
    return MixUpCutMix(recipe.mixup, recipe.cutmix) if recipe.mixup or recipe.cutmix else None


def batch_augmentation(recipe, image_size):
    """Returns the layers that augment whole batches in the training step, for `crop` "pad" and "affine"."""
    layers = flip_and_crop(recipe, image_size)
    if layers and recipe.random_erasing:
        layers.append(batch.RandomErasing(recipe.random_erasing))
    return layers


def flip_and_crop(recipe, image_size):
    """Returns the layers that flip and crop batches, none for other crops than "pad" and "affine"."""
    if recipe.crop not in ("pad", "affine"):
        return []  # see `image_augmentation`
    layers = [batch.RandomFlip()] if recipe.flip else []
    if recipe.crop == "pad":
        layers.append(batch.RandomCrop(padding=max(1, min(image_size) // 16)))
    else:
        layers.append(batch.RandomAffine(rotation=0.02, zoom=0.2))
    return layers


def device_augmentation(recipe, image_shape):
    """Returns the augmentation of images as a model from (b, h, w, c) to the same shape.

    RandAugment is replaced by rotation, zoom and colours, each drawn uniformly up to RandAugment's own limit
    at that magnitude (at 10: 30 degrees, 30 %, factors from 0.1 to 1.9).
    """
    layers = flip_and_crop(recipe, image_shape[:2])
    if recipe.randaugment:
        share = recipe.randaugment / 10
        layers.append(batch.RandomAffine(rotation=share / 12, zoom=0.3 * share, dtype="float32"))
        layers.append(batch.RandomColor(0.9 * share, dtype="float32"))
    if recipe.random_erasing:
        layers.append(batch.RandomErasing(recipe.random_erasing, dtype="float32"))
    images = keras.Input(image_shape, name="images")
    x = images
    for layer in layers or [keras.layers.Identity(dtype="float32")]:
        x = layer(x)
    return keras.Model(images, x, name="augmentation")
