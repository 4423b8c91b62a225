"""`ImageData`: a labelled image data set in memory. Shapes: n images, h rows, w columns, c channels."""

from dataclasses import dataclass

import numpy as np

from vit_tf.checks import require


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labelled image data set. Invalid arrays raise a ValueError that names the array.

    Args:
        x_train, x_test: uint8 [n, h, w, c] with c 1, 3 or 4; h, w and c are the same in both.
        y_train, y_test: integers [n] or [n, 1] in 0 .. len(class_names) - 1; kept as int64 [n].
        class_names: one name per class, in the order of the labels.
        name: "cifar10", "cifar100", "sample" (the embedded one), or the stem of a user's file.
        note: one line to show to the user, such as why the sample was loaded; often empty.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple
    name: str
    note: str = ""

    def __post_init__(self):
        for split in ("train", "test"):
            x_label, y_label = (f"{array}_{split} of {self.name!r}" for array in "xy")
            images = checked_images(getattr(self, f"x_{split}"), x_label)
            labels = flat_labels(getattr(self, f"y_{split}"), y_label)
            problem = f"{x_label} has {len(images)} images, {y_label} {len(labels)} labels"
            require(len(images) == len(labels), f"{problem}: expected one label per image")
            low, high, last = labels.min(), labels.max(), len(self.class_names) - 1
            require(0 <= low <= high <= last, f"{y_label} has labels {low} to {high}: expected 0 to {last}")
            object.__setattr__(self, f"x_{split}", images)
            object.__setattr__(self, f"y_{split}", labels.astype(np.int64))
        train, test = self.x_train.shape[1:], self.x_test.shape[1:]
        problem = f"images of {self.name!r} are {train} in x_train but {test} in x_test"
        require(train == test, f"{problem}: expected one size, resize one of them")


def checked_images(images, label):
    images = np.asarray(images)
    hint = "use x.round().astype('uint8'), after multiplying by 255 if they lie in 0 .. 1"
    require(images.dtype == np.uint8, f"{label} is {images.dtype}: expected uint8 in 0 .. 255, {hint}")
    problem = f"{label} has shape {images.shape}: expected"
    require(images.ndim == 4, f"{problem} [n, h, w, c]; gray images need x[..., None]")
    require(images.size > 0, f"{problem} at least one image")
    require(images.shape[3] in (1, 3, 4), f"{problem} 1, 3 or 4 channels last, use x.transpose(0, 2, 3, 1)")
    return images


def flat_labels(labels, label):
    labels = np.asarray(labels)
    require(labels.dtype.kind in "iu", f"{label} is {labels.dtype}: expected integers, use y.astype(int)")
    problem = f"{label} has shape {labels.shape}: expected"
    require(labels.ndim and labels.shape[1:] in ((), (1,)), f"{problem} [n] or [n, 1], not one-hot labels")
    require(labels.size > 0, f"{problem} at least one label")
    return labels.reshape(-1)


def checked_labels(labels, num_classes):
    """Returns labels as int64 [n] or bool [n, k]; a ValueError unless they fit the number of classes."""
    if labels.dtype == bool and labels.ndim == 2:
        problem = f"labels are bool of shape {labels.shape}"
        require(labels.shape[1] == num_classes, f"{problem}: expected {num_classes} columns, one per class")
        return labels
    is_integer = labels.dtype.kind in "iu" or not labels.size
    expected = "expected integers, indices into class_names, or bool of two dimensions"
    require(is_integer, f"labels are {labels.dtype}: {expected}")
    labels = labels.astype(np.int64).reshape(-1)
    low, high, last = labels.min(initial=0), labels.max(initial=-1), num_classes - 1
    require(0 <= low and high <= last, f"labels are {low} to {high}: expected 0 to {last}, one per class")
    return labels
