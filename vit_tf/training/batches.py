"""From a recipe to batches: which augmentation happens where."""

from vit_tf.data import CachedImages, DataLoader, DecodedImages, EvalTransform
from vit_tf.data.augment import batch as augment
from vit_tf.data.augment.image import Compose, HorizontalFlip, RandomErasing, RandomResizedCrop
from vit_tf.data.augment.mixing import MixUpCutMix
from vit_tf.data.augment.randaugment import RandAugment
from vit_tf.training.tasks import SINGLE_LABEL


def make_batches(images, part, recipe, preprocessing, task=SINGLE_LABEL):
    """Returns the `vit_tf.data.DataLoader` of a part of one's own images; None where it is empty.

    Args:
        images: `vit_tf.data.ImageFiles` whose splits are set.
        part: "train", which is shuffled and augmented, "validation" or "test".
        recipe: a `Recipe`.
        preprocessing: the `Preprocessing` whose resizing and cropping make the evaluation's view.
        task: one of `vit_tf.training.tasks.TASKS`, for which the images are prepared.
    """
    members = [i for i, split in enumerate(images.splits) if split == part]
    if not members:
        return None
    chosen, view = images.subset(members), EvalTransform(preprocessing)
    pictures = DecodedImages(chosen)
    if recipe.cache:
        pictures = CachedImages(pictures, 2 * max(preprocessing.image_size))
    is_train = part == "train"
    augmentation = image_augmentation(recipe, preprocessing.image_size, view)
    return DataLoader(
        pictures,
        task.encode(chosen.labels),
        task.num_outputs(len(chosen.class_names)),
        recipe.batch_size,
        transform=augmentation if is_train else view,
        mix=make_mix(recipe) if is_train else None,
        shuffle=is_train,
        seed=recipe.seed,
    )


def image_augmentation(recipe, image_size, view=None):
    """Returns what happens to each picture before it comes into a training batch, None for nothing.

    Args:
        recipe: a `Recipe`.
        image_size: (height, width) in pixels of the batches.
        view: the transform of the evaluation, which brings a picture to that size; None where it has it.
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
    """Returns MixUp and CutMix of a batch, None where the recipe has neither."""
    return MixUpCutMix(recipe.mixup, recipe.cutmix) if recipe.mixup or recipe.cutmix else None


def batch_augmentation(recipe, image_size):
    """Returns the augmentation that runs as layers in the training step: that of small images."""
    if recipe.crop not in ("pad", "affine"):
        return []  # that of single pictures, see `image_augmentation`
    if recipe.crop == "pad":
        moved = augment.RandomCrop(padding=max(1, min(image_size) // 16))
    else:
        moved = augment.RandomAffine(rotation=0.02, zoom=0.2)
    return [augment.RandomFlip(), moved] if recipe.flip else [moved]
