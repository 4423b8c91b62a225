"""The images of quantization: which are calibrated on, which are measured on; none is a test image."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vit_tf import data
from vit_tf.classifier import Classifier
from vit_tf.deploy.calibration import choose_images
from vit_tf.preprocessing import Preprocessing

LABELS = ("apple", "pear")
SETTINGS = Preprocessing(8, "bilinear", 1.0, "squash", (0.4, 0.5, 0.6), (0.2, 0.2, 0.3))


def subject(labels=LABELS, takes_pixels=False):
    model = SimpleNamespace(outputs=[np.zeros((1, len(labels)))], output_shape=(None, len(labels)))
    return SimpleNamespace(classifier=Classifier(model, SETTINGS, labels), takes_pixels=takes_pixels)


@pytest.fixture
def folder(tmp_path):
    """Six images per class and part; the red channel of each is its own number."""
    number = 0
    for part in ("train", "val", "test"):
        for name in LABELS:
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(6):
                number += 1
                Image.new("RGB", (10, 12), (number, 0, 0)).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def numbers(images):
    """Returns the numbers of the images, which `folder` painted into them."""
    pixels = SETTINGS.to_pixels(images.stacked())[:, 0, 0, 0] if not images.takes_pixels else None
    return set((images.stacked()[:, 0, 0, 0] if pixels is None else pixels.round()).astype(int).tolist())


def test_parts_of_a_folder(folder):
    calibration, held_out = choose_images(folder, subject(takes_pixels=True), "cifar10", 4)
    assert len(calibration) == 4 and numbers(calibration) < set(range(1, 13))
    assert numbers(held_out) == set(range(13, 25)) and held_out.part == "validation"
    images, targets = next(held_out.batches(5))
    assert images.shape == (5, 8, 8, 3) and images.dtype == "uint8" and targets.shape == (5, 2)
    assert choose_images(folder, subject(), None, 4)[1].stacked().dtype == "float32"
    assert numbers(choose_images(folder, subject(), None, 4)[1]) == set(range(13, 25))
    _, few = choose_images(folder, subject(), None, 4, num_held_out=6)
    assert sum(targets.sum(axis=0) for _, targets in few.batches(4)).tolist() == [3, 3]  # by class


def test_without_validation_images(folder):
    for path in (folder / "val").rglob("*.png"):
        path.unlink()
    calibration, held_out = choose_images(folder, subject(takes_pixels=True), None, 100)
    assert numbers(calibration) | numbers(held_out) == set(range(1, 13))
    assert not numbers(calibration) & numbers(held_out) and len(held_out) == 6


@pytest.mark.parametrize("fraction, seed", [(0.1, 0), (0.2, 7)])
def test_arrays_are_split_as_for_training(fraction, seed, tmp_path):
    arrays = data.load_cifar("sample")
    labels = arrays.class_names
    run = {"command": {"validation_fraction": fraction}, "recipe": {"seed": seed}}
    (tmp_path / "config.json").write_text(json.dumps(run))
    weights = None if seed == 0 else tmp_path
    calibration, held_out = choose_images("sample", subject(labels), weights, 20)
    _, validation = data.stratified_split(arrays.y_train, fraction, seed)
    np.testing.assert_array_equal(held_out.images.pixels, arrays.x_train[validation])
    assert len(calibration) == 20 and len(set(calibration.images.labels)) == 10


def test_bad_data(folder, tmp_path):
    with pytest.raises(ValueError, match="classes of DATA are not among the labels"):
        choose_images(folder, subject(("cat", "dog")), None, 4)
    assert len(choose_images(folder, subject(("cat", "dog")), None, 4, match="order")[0]) == 4
    rows = ["path,label,split", *(f"test/{name}/0.png,{name},test" for name in LABELS)]
    (folder / "labels.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match="has test images alone"):
        choose_images(folder / "labels.csv", subject(), None, 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="it is empty"):
        choose_images(tmp_path / "empty", subject(), None, 4)
