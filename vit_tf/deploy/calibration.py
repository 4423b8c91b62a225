"""The images of quantization: some to calibrate on, others to measure accuracy on; never test images.

Shapes: b images of a batch, H rows and W columns of the model's input, k classes.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_tf.checks import is_int, is_number, shown
from vit_tf.data import DataLoader, DecodedImages, EvalTransform, find_images, load_cifar
from vit_tf.data.stratification import draw_stratified
from vit_tf.files import read_json
from vit_tf.training import evaluation
from vit_tf.training.datasets import is_array_source

if TYPE_CHECKING:
    from vit_tf.classifier import Classifier
    from vit_tf.deploy.subject import Subject

VALIDATION_FRACTION = 0.1  # of arrays, drawn with seed 0: the default of `vit-tf train`
DEFAULT_HELD_OUT = 2000
SEED = 0


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images as a model takes them, with their labels; they are decoded each time they are iterated over.

    Args:
        images: `ImageFiles` or `vit_tf.training.evaluation.ArrayImages`.
        targets: what `vit_tf.training.evaluation.encode` returned.
        classifier: the `Classifier` whose preprocessing is applied.
        takes_pixels: bool, whether the model takes uint8 pixels.
        part: text that names the images, for the report.
    """

    images: Any
    targets: np.ndarray
    classifier: "Classifier"
    takes_pixels: bool
    part: str

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (images (b, H, W, 3) as the model takes them, targets float32 (b, k))."""
        is_array = isinstance(self.images, evaluation.ArrayImages)
        source = self.images.pixels if is_array else DecodedImages(self.images)
        preprocessing = self.classifier.preprocessing
        loader = DataLoader(
            source,
            self.targets,
            self.classifier.model.outputs[0].shape[-1],
            batch_size,
            transform=EvalTransform(preprocessing),
        )
        for pixels, targets in loader.epoch():
            yield pixels if self.takes_pixels else preprocessing.normalize(pixels), targets

    def stacked(self) -> np.ndarray:
        """Returns all images as one array, as `batches` yields them."""
        return np.concatenate([images for images, _ in self.batches(100)])


def choose_images(
    source: Any,
    subject: "Subject",
    weights: Any,
    num_calibration: int,
    num_held_out: int | None = None,
    match: str = "name",
    max_bad: float = 0.01,
) -> tuple[LabelledImages, LabelledImages]:
    """Returns the images to calibrate on and the images to measure on, drawn by class with a fixed seed.

    The images to measure on are the validation images of the data set; if `weights` is a run on the same
    images, those of the run. Without a validation part they are drawn from all images but those of a test
    part. The images to calibrate on are drawn from the rest.

    Args:
        source: labelled images, see `vit-tf quantize --help`.
        subject: the `Subject` that is quantized.
        weights: the source of its weights, or the model.
        num_calibration: int, the number of images to calibrate on, at most.
        num_held_out: int, the number of images to measure on, at most; 2,000 by default.
        match: how classes are matched with labels, see `vit_tf.training.evaluation.match_classes`.
        max_bad: allowed share of unreadable images.

    Raises:
        ValueError: there are no such images, too few, or their classes are not those of the model.
    """
    pool, rest, part = split(source, weights, num_calibration)
    classifier = subject.classifier
    task, labels = evaluation.task_of(classifier), evaluation.label_names(classifier)
    outputs = evaluation.match_classes(pool.class_names, labels, match)

    def prepare(images, count, part):
        images = evaluation.readable(draw(images, count), max_bad)
        images, targets = evaluation.encode(images, outputs, len(labels), task)
        if not len(targets):
            raise ValueError(f"{shown(source)} has no {part} images of the model's classes")
        return LabelledImages(images, targets, classifier, subject.takes_pixels, part)

    calibration = prepare(pool, num_calibration, "calibration")
    return calibration, prepare(rest, num_held_out or DEFAULT_HELD_OUT, part)


def split(source, weights, num_calibration):
    """Returns the images to draw calibration images from, the images to measure on, and the latter's name."""
    if is_array_source(source):
        arrays = load_cifar(source)
        images = evaluation.ArrayImages(arrays.x_train, arrays.y_train, arrays.class_names)
        held_out = draw_mask(images.labels, *split_of_run(weights))
        return images.subset(~held_out), images.subset(held_out), "validation"
    files = find_images(source)
    if isinstance(weights, (str, os.PathLike)):
        files = evaluation.parts_of_run(files, source, weights)
    parts = np.array([part or "train" for part in files.splits], object)
    files, parts = files.subset(parts != "test"), parts[parts != "test"]
    if len(files) < 2:
        raise ValueError(f"{shown(source)} has test images alone, which must not choose a quantization")
    held_out = parts == "validation"
    if held_out.any() and not held_out.all():
        return files.subset(~held_out), files.subset(held_out), "validation"
    held_out = draw_mask(files.labels, max(0.5, 1 - num_calibration / len(files)))
    return files.subset(~held_out), files.subset(held_out), "held-out"


def split_of_run(weights):
    """Returns the validation fraction and the seed of a run on arrays; those of `vit-tf train` for others."""
    path = evaluation.run_of(weights) / "config.json" if isinstance(weights, (str, os.PathLike)) else None
    config = read_json(path) if path and path.is_file() else {}
    parts = [config.get(key) for key in ("command", "recipe")]
    command, recipe = (part if isinstance(part, dict) else {} for part in parts)
    fraction, seed = command.get("validation_fraction"), recipe.get("seed")
    is_valid = is_number(fraction) and 0 < fraction < 1 and is_int(seed) and seed >= 0
    return (fraction, seed) if is_valid else (VALIDATION_FRACTION, SEED)


def draw_mask(labels, fraction, seed=SEED):
    return draw_stratified(labels, fraction, np.random.default_rng(seed))


def draw(images, count):
    """Returns at most `count` of some images, by class."""
    if count >= len(images.labels):
        return images
    drawn = draw_stratified(
        images.labels, count / len(images.labels), np.random.default_rng(SEED), num_kept=0
    )
    return images.subset(drawn)
