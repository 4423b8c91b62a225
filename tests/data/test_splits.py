"""Splits of image files; those of plain labels are tested with the data sets."""

import csv
import os
import shutil

import numpy as np
import pytest
from support.cifar_files import (
    make_arrays,
)

from vit_tf.data import (
    ImageFiles,
    find_images,
    read_split,
    split_files,
    stratified_split,
    write_split,
)


def make_files(root, counts, splits=None):
    """ImageFiles of as many images a class as `counts` says; there are no files behind them."""
    class_names = tuple(f"class{i}" for i in range(len(counts)))
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple(f"class{label}/{i:04}.jpg" for i, label in enumerate(labels))
    return ImageFiles(root, class_names, names, labels, splits or (None,) * len(names))


def counts_of(files, split):
    is_in = [name == split for name in files.splits]
    return np.bincount(files.labels[is_in], minlength=len(files.class_names)).tolist()


def test_split_files_keeps_the_shares_of_the_classes(tmp_path):
    files = split_files(make_files(tmp_path, [200, 100, 50]), 0.2, 0.1, seed=1)
    assert counts_of(files, "test") == [20, 10, 5]
    assert counts_of(files, "validation") == [40, 20, 10]
    assert counts_of(files, "train") == [140, 70, 35]
    drawn = np.flatnonzero(np.array(files.splits) == "test")
    assert (np.diff(drawn) > 1).sum() > 25  # from all over, not the first ones


@pytest.mark.parametrize("fractions", [(0.1, 0.1), (0.5, 0.4), (0.02, 0.9), (0.9, 0.02)])
def test_split_files_leaves_each_class_one_in_each_part(tmp_path, fractions):
    files = split_files(make_files(tmp_path, [3, 5, 100]), *fractions)
    parts = [counts_of(files, split) for split in ("train", "validation", "test")]
    assert np.min(parts) >= 1 and np.sum(parts, axis=0).tolist() == [3, 5, 100]
    assert parts[1][2] == pytest.approx(100 * fractions[0], abs=8)
    assert parts[2][2] == pytest.approx(100 * fractions[1], abs=8)


def test_split_files_depends_on_names_labels_and_seed_alone(tmp_path):
    files = make_files(tmp_path, [40, 30])
    first = split_files(files, seed=5)
    assert split_files(make_files("elsewhere", [40, 30]), seed=5).splits == first.splits
    assert split_files(files, seed=6).splits != first.splits
    assert counts_of(split_files(files, seed=6), "test") == counts_of(first, "test")
    assert (first.names, first.class_names) == (files.names, files.class_names)
    # Pinned: a run that is resumed on another machine has to find the same images.
    assert [i for i, split in enumerate(first.splits) if split == "test"] == [6, 18, 24, 30, 44, 47, 62]


def test_split_files_without_test(tmp_path):
    files = split_files(make_files(tmp_path, [10, 10]), 0.2, 0)
    assert counts_of(files, "validation") == [2, 2] and counts_of(files, "train") == [8, 8]


def test_split_files_keeps_what_the_data_set_says(tmp_path):
    splits = ("validation",) * 2 + ("train",) * 10 + (None,) * 10 + ("validation",) * 3
    files = make_files(tmp_path, [12, 13], splits)
    split = split_files(files, test_fraction=0.2)
    assert counts_of(split, "validation") == [2, 3]
    assert counts_of(split, "test") == [2, 2] and counts_of(split, "train") == [8, 8]
    whole = split_files(split, 0.5, 0.4, seed=3)
    assert whole.splits == split.splits
    trained = make_files(tmp_path, [20, 20], ("train", "test") * 20)
    split = split_files(trained, validation_fraction=0.2)
    assert split.splits[1::2] == ("test",) * 20
    assert counts_of(split, "validation") == [2, 2] and counts_of(split, "train") == [8, 8]


@pytest.mark.parametrize(
    ("counts", "fractions", "match"),
    [
        ([2, 9], (0.1, 0.1), r"1 classes .*\('class0' has 2\): expected 3 or more, one for training and val"),
        ([1, 9, 1], (0.1, 0), r"2 classes .*\('class0' has 1, 'class2' has 1\): expected 2 or more"),
        ([1], (0.1, 0.1), "'class0' has 1"),
        ([9, 0], (0.1, 0.1), "'class1' has 0"),
    ],
)
def test_split_files_refuses_small_classes(tmp_path, counts, fractions, match):
    with pytest.raises(ValueError, match=match):
        split_files(make_files(tmp_path, counts), *fractions)


def test_split_files_refuses_a_class_that_is_never_trained(tmp_path):
    files = make_files(tmp_path, [3, 2], ("train", "test", "validation", "test", "validation"))
    with pytest.raises(ValueError, match="'class1' has 0.: expected 1 or more, one for training each"):
        split_files(files)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"validation_fraction": 0}, "`validation_fraction` must be a number in \\(0, 1\\), got 0"),
        ({"validation_fraction": 1.0}, r"validation_fraction` must be a number in \(0, 1\), got 1.0"),
        ({"validation_fraction": "0.1"}, r"must be a number in \(0, 1\), got '0.1'"),
        ({"validation_fraction": float("nan")}, r"must be a number in \(0, 1\), got nan"),
        ({"test_fraction": -0.1}, r"`test_fraction` must be a number in \[0, 1\), got -0.1"),
        ({"test_fraction": None}, r"`test_fraction` must be a number in \[0, 1\), got None"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "are 0.5 and 0.5: expected a sum below 1"),
        ({"seed": -1}, "`seed` must be a non-negative int, got -1"),
    ],
)
def test_split_files_refuses(tmp_path, arguments, match):
    with pytest.raises(ValueError, match=match):
        split_files(make_files(tmp_path, [9, 9]), **arguments)


# ---------------------------------------------------------------- write_split and read_split


ODD_NAMES = ("a, b.jpg", ' "quoted".jpg', "line\nbreak\r.jpg", "кошка 狗.jpg", os.fsdecode(b"caf\xe9.jpg"))


@pytest.fixture
def odd(tmp_path):
    """A data set of names that are hard to write down, some of them left without a split."""
    names = tuple(sorted(f"{label}/{name}" for label in ("x", "кот") for name in ODD_NAMES))
    splits = ("train", "validation", "test", "train", None) * 2
    return ImageFiles(tmp_path, ("x", "кот"), names, np.repeat([0, 1], 5), splits)


def test_a_split_is_read_back(odd, tmp_path):
    path = tmp_path / "split.csv"
    write_split(odd, path)
    back = read_split(odd, path)
    assert (back.names, back.splits, back.class_names) == (odd.names, odd.splits, odd.class_names)
    np.testing.assert_array_equal(back.labels, odd.labels)
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[:2] == [["path", "label", "split", "fingerprint"], [odd.names[0], "x", "train", ""]]
    assert os.listdir(tmp_path) == ["split.csv"]


def test_a_split_is_a_data_set_where_it_lies_in_its_folder(odd, tmp_path):
    for name in odd.names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    kept = odd.subset([name.strip() == name and ' "' not in name for name in odd.names])
    write_split(kept, tmp_path / "split.csv")
    found = find_images(tmp_path / "split.csv")
    assert (found.names, found.splits) == (kept.names, kept.splits)


@pytest.mark.parametrize("kind", ["folder", "zip", "csv"])
def test_images_that_changed_since_are_noted(tmp_path, kind):
    """The same size and time, another byte; a large file in its middle; what is new or gone is told, too."""
    names = [f"{label}/{i}.png" for label in ("cat", "dog") for i in range(4)]
    contents = {name: bytes([i]) * (100_000 if i == 5 else 500) for i, name in enumerate(names)}
    files = write_images(tmp_path, kind, contents)
    write_split(split_files(files), tmp_path / "split.csv")
    assert read_split(files, tmp_path / "split.csv").notes == ()
    contents["cat/2.png"] = b"\x02" * 499 + b"x"
    contents["dog/1.png"] = b"\x05" * 50_000 + b"x" + b"\x05" * 49_999
    changed = read_split(write_images(tmp_path, kind, contents), tmp_path / "split.csv")
    assert changed.notes == ("2 images have changed since the run began: 'cat/2.png', 'dog/1.png'",)
    contents["dog/new.png"] = b"new"
    notes = read_split(write_images(tmp_path, kind, contents), tmp_path / "split.csv").notes
    assert len(notes) == 2
    assert (
        notes[0] == "files that are new since the run began, or unreadable, are left out (1): 'dog/new.png'"
    )
    del contents["cat/0.png"]
    with pytest.raises(ValueError, match="missing images \\(1\\): 'cat/0.png'"):
        read_split(write_images(tmp_path, kind, contents), tmp_path / "split.csv")


def write_images(folder, kind, contents):
    """Returns the `ImageFiles` of a folder, a zip or a CSV with these files in it."""
    root = folder / "images"
    shutil.rmtree(root, ignore_errors=True)
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        os.utime(root / name, (10**9, 10**9))
    if kind == "csv":
        rows = "".join(f"{name},{name[:3]}\n" for name in contents)
        (root / "labels.csv").write_text(f"path,label\n{rows}")
        return find_images(root / "labels.csv")
    if kind == "zip":
        return find_images(shutil.make_archive(folder / "images", "zip", root))
    return find_images(root)


def test_a_split_of_version_0_1_has_no_fingerprints(tmp_path):
    files = make_files(tmp_path, [4, 4])
    write_split(split_files(files), tmp_path / "split.csv")
    lines = (tmp_path / "split.csv").read_text().splitlines()
    (tmp_path / "split.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    assert read_split(files, tmp_path / "split.csv").notes == ()


def test_images_and_classes_that_are_new_since_are_left_out(tmp_path):
    files = make_files(tmp_path, [4, 4])
    old = split_files(files.subset([0, 1, 2, 4, 5, 6]))
    write_split(old, tmp_path / "split.csv")
    labels = np.array([1, 1, 1, 1, 2, 2, 2, 2])  # a class before the others moves their indices
    grown = ImageFiles(tmp_path, ("a_new", "class0", "class1"), files.names, labels, files.splits)
    back = read_split(grown, tmp_path / "split.csv")
    assert (back.names, back.splits, back.class_names) == (old.names, old.splits, old.class_names)
    np.testing.assert_array_equal(back.labels, old.labels)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no split: expected the header path,label,split"),
        ("path,label\nclass0/0000.jpg,class0\n", "no split: expected the header"),
        (
            "path,label,split\nclass0/9.jpg,class0,train\n",
            "missing images \\(1\\): 'class0/9.jpg'; new images \\(6\\)",
        ),
        ("path,label,split\nclass0/0000.jpg,bear,train\n", "line 2 has the class 'bear', which the data set"),
        ("path,label,split\nclass0/0000.jpg,class1,train\n", "of the class 'class1' and is now of 'class0'"),
        ("path,label,split\nclass0/0000.jpg,class0,val\n", "line 2 is damaged or a duplicate"),
        ("path,label,split\nclass0/0000.jpg,class0\n", "line 2 is damaged or a duplicate"),
        ("path,label,split\n" + "class0/0000.jpg,class0,train\n" * 2, "line 3 is damaged or a duplicate"),
    ],
)
def test_read_split_refuses(tmp_path, text, match):
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{str(path)!r}: .*{match}"):
        read_split(make_files(tmp_path, [3, 3]), path)


def test_files_that_are_not_there_are_os_errors(tmp_path):
    files = make_files(tmp_path, [3, 3])
    with pytest.raises(OSError):
        read_split(files, tmp_path / "split.csv")
    with pytest.raises(OSError):
        write_split(files, tmp_path / "nowhere" / "split.csv")


def test_split_is_proportional_disjoint_and_complete():
    labels = np.repeat(np.arange(10), [500, 400, 300, 200, 100, 90, 80, 70, 60, 50])
    labels = np.random.default_rng(1).permutation(labels)
    train, validation = stratified_split(labels, 0.1, seed=0)
    assert train.dtype == validation.dtype == np.int64
    assert np.bincount(labels[validation]).tolist() == [50, 40, 30, 20, 10, 9, 8, 7, 6, 5]
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(labels)))
    assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all()


def test_split_shares_remainders_out_to_the_largest():
    labels = np.repeat([0, 1, 2], [13, 16, 11])  # quotas 2.6, 3.2, 2.2 of 8
    _, validation = stratified_split(labels, 0.2, seed=0)
    assert np.bincount(labels[validation]).tolist() == [3, 3, 2]


def test_split_takes_from_all_over_a_class():
    labels = np.zeros(1000, int)
    _, validation = stratified_split(labels, 0.2, seed=0)
    assert len(validation) == 200
    assert validation.min() < 100 and validation.max() >= 900


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, [1, 1, 0]), (0.99, [1, 4, 0])])
def test_split_leaves_each_class_one_in_each_part(fraction, expected):
    labels = np.array([7, 7, 3000, 3000, 3000, 3000, 3000, 99999])
    _, validation = stratified_split(labels, fraction, seed=0)
    assert [int((labels[validation] == label).sum()) for label in (7, 3000, 99999)] == expected


def test_split_depends_on_the_seed_alone():
    labels = make_arrays(per_batch=40)[1]
    first, second = (stratified_split(labels, 0.25, seed=5) for _ in range(2))
    other = stratified_split(labels[:, None].astype(np.uint8), 0.25, seed=6)
    same = stratified_split(labels[:, None].astype(np.uint8), 0.25, seed=5)
    for index in (0, 1):
        np.testing.assert_array_equal(first[index], second[index])
        np.testing.assert_array_equal(first[index], same[index])
        assert not np.array_equal(first[index], other[index])
        assert len(first[index]) == len(other[index])


@pytest.mark.parametrize("fraction", [0, 1, 0.0, 1.0, -0.1, 1.5, float("nan"), "0.1", None, True])
def test_split_refuses_fraction(fraction):
    with pytest.raises(ValueError, match=r"`fraction` must be a number in \(0, 1\)"):
        stratified_split(np.zeros(10, int), fraction, seed=0)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None])
def test_split_refuses_seed(seed):
    with pytest.raises(ValueError, match="`seed` must be a non-negative int"):
        stratified_split(np.zeros(10, int), 0.1, seed)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros(10), "labels is float64: expected integers"),
        (np.zeros((10, 2), int), r"labels has shape \(10, 2\): expected \[n\] or \[n, 1\]"),
        (np.zeros(0, int), "labels has shape .*: expected at least one label"),
        (np.arange(10), "no class of labels has two members"),
    ],
)
def test_split_refuses_labels(labels, match):
    with pytest.raises(ValueError, match=match):
        stratified_split(labels, 0.1, seed=0)
