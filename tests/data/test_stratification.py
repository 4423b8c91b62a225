import numpy as np
import pytest
from support.label_sets import make_files

from vit_tf.data import ImageFiles, read_split, split_files, write_split


def counts_of(files):
    splits = np.array(files.splits)
    return np.array([files.labels[splits == s].sum(axis=0) for s in ("train", "validation", "test")])


def test_a_split_keeps_the_share_of_every_class(tmp_path):
    files = make_files(tmp_path)
    split = split_files(files, 0.2, 0.1, seed=3)
    counts, total = counts_of(split), files.labels.sum(axis=0)
    np.testing.assert_allclose(counts[1], 0.2 * total, atol=1.01)
    np.testing.assert_allclose(counts[2], 0.1 * total, atol=1.01)
    assert counts[:, 4].tolist() == [1, 1, 1]  # three images: one for each part
    sizes = [split.splits.count(part) for part in ("train", "validation", "test")]
    np.testing.assert_allclose(sizes, [280, 80, 40], atol=4)
    assert split_files(make_files("elsewhere"), 0.2, 0.1, seed=3).splits == split.splits
    assert split_files(files, 0.2, 0.1, seed=4).splits != split.splits


def test_a_split_refuses_a_class_of_too_few_images(tmp_path):
    files = make_files(tmp_path)
    with pytest.raises(ValueError, match="1 classes have too few .*'e' has 2"):
        split_files(files.subset(range(98)))


def test_a_split_of_several_labels_is_read_back(tmp_path):
    files = split_files(make_files(tmp_path))
    write_split(files, tmp_path / "split.csv")
    labels = np.concatenate([np.zeros((400, 1), bool), files.labels], axis=1)
    grown = ImageFiles(tmp_path, ("a new one", *files.class_names), files.names, labels, files.splits)
    back = read_split(grown, tmp_path / "split.csv")
    assert (back.names, back.splits, back.class_names) == (files.names, files.splits, files.class_names)
    np.testing.assert_array_equal(back.labels, files.labels)
    labels[3, 1:] ^= True
    with pytest.raises(ValueError, match="'0003.jpg' was of the class .* and is now of"):
        read_split(grown, tmp_path / "split.csv")
