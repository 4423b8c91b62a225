"""From a recipe to the batches of image files, augmented by `vit_tf.training.augmentation`."""

from vit_tf.checks import pair
from vit_tf.data import CachedImages, DataLoader, DecodedImages, EvalTransform, ImageFiles
from vit_tf.preprocessing.transform import Preprocessing
from vit_tf.training.augmentation import image_augmentation, make_mix
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
