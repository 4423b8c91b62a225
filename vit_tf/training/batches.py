"""From a recipe to batches, with the augmentation of images and of batches."""

from vit_tf.checks import pair
from vit_tf.data import CachedImages, DataLoader, DecodedImages, EvalTransform, ImageFiles
from vit_tf.data.augment import batch as augment
from vit_tf.data.augment.image import Compose, HorizontalFlip, RandomErasing, RandomResizedCrop
from vit_tf.data.augment.mixing import MixUpCutMix
from vit_tf.data.augment.randaugment import RandAugment
from vit_tf.preprocessing.transform import Preprocessing
from vit_tf.training.recipes import Recipe
from vit_tf.training.tasks import SINGLE_LABEL, SingleLabel


def make_batches(
    images: ImageFiles,
    part: str,
    recipe: Recipe,
    preprocessing: Preprocessing,
    task: SingleLabel = SINGLE_LABEL,
    augment_train: bool = True,
) -> DataLoader | None:
    """Returns the `vit_tf.data.DataLoader` of a part of labelled image files; None if the part is empty.

    Args:
        images: `vit_tf.data.ImageFiles` whose splits are set.
        part: "train", which is shuffled and augmented, "validation" or "test".
        recipe: a `Recipe`.
        preprocessing: the `Preprocessing` that resizes and crops images for evaluation.
        task: one of `vit_tf.training.tasks.TASKS`, for which the images are prepared.
        augment_train: bool; False prepares the training images as for evaluation, in their own order.
    """
    members = [i for i, split in enumerate(images.splits) if split == part]
    if not members:
        return None
    subset, view = images.subset(members), EvalTransform(preprocessing)
    decoded: DecodedImages | CachedImages = DecodedImages(subset)
    if recipe.cache:
        decoded = CachedImages(DecodedImages(subset), 2 * max(pair(preprocessing.image_size, "image_size")))
    is_train = part == "train" and augment_train
    augmentation = image_augmentation(recipe, preprocessing.image_size, view)
    return DataLoader(
        decoded,
        task.encode(subset.labels),
        task.num_outputs(len(subset.class_names)),
        recipe.batch_size,
        transform=augmentation if is_train else view,
        mix=make_mix(recipe) if is_train else None,
        shuffle=is_train,
        seed=recipe.seed,
    )


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
    if recipe.random_erasing:
        steps.append(RandomErasing(recipe.random_erasing))
    return Compose(steps) if steps else None


def make_mix(recipe):
    """Returns the MixUp and CutMix of a recipe, None if it has neither."""
    return MixUpCutMix(recipe.mixup, recipe.cutmix) if recipe.mixup or recipe.cutmix else None


def batch_augmentation(recipe, image_size):
    """Returns the layers that augment whole batches in the training step, for `crop` "pad" and "affine"."""
    if recipe.crop not in ("pad", "affine"):
        return []  # see `image_augmentation`
    if recipe.crop == "pad":
        crop = augment.RandomCrop(padding=max(1, min(image_size) // 16))
    else:
        crop = augment.RandomAffine(rotation=0.02, zoom=0.2)
    return [augment.RandomFlip(), crop] if recipe.flip else [crop]
