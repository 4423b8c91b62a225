"""The data sets of the training commands."""

import zipfile

import numpy as np
import pytest

from vit_tf.data import ImageData
from vit_tf.training.datasets import ArrayDataset, open_dataset
from vit_tf.training.recipes import Recipe


def test_first_images_of_a_file_sorted_by_class(tmp_path):
    """The whitening is computed from them."""
    labels = np.repeat(np.arange(4), 50)
    images = np.broadcast_to(labels[:, None, None, None], (200, 6, 5, 3)).astype(np.uint8)
    dataset = ArrayDataset(
        ImageData(images, labels, images[::50], labels[::50], list("abcd"), "sorted"), None
    )
    dataset.split({"validation_fraction": 0.1}, Recipe(), tmp_path, is_new=True)
    classes = dataset.first_images(60, None)[:, 0, 0, 0]
    assert len(classes) == 60 and np.bincount(classes).min() > 5
    np.testing.assert_array_equal(dataset.first_images(60, None)[:, 0, 0, 0], classes)
    assert np.bincount(dataset.first_images(1000, None)[:, 0, 0, 0]).tolist() == [45] * 4


def test_a_damaged_zip(tmp_path):
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/a.png", b"some bytes")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02")] = 0  # of the central directory
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged zip"):
        open_dataset(path)
