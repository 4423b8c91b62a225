"""One's own images: data sets good and bad are made in a temporary folder."""

import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.image_folders import JPEG, to_bytes, write

from vit_tf.data import ImageFiles, check_images, find_images, image_checks
from vit_tf.data import directory_layout as layouts


@pytest.fixture
def six(tmp_path):
    names = [f"{label}/{i}.jpg" for label in ("cat", "dog") for i in range(3)]
    return find_images(write(tmp_path, names))


def test_subset(six):
    some = six.subset([4, 0])
    assert some.names == ("cat/0.jpg", "dog/1.jpg") and some.labels.tolist() == [0, 1]
    assert some.class_names == six.class_names and some.splits == (None, None)
    assert six.subset(six.labels == 1).names == six.names[3:]
    assert len(six.subset([])) == 0 and len(six.subset(np.zeros(6, bool))) == 0


def test_multi_label(six):
    assert not six.is_multi_label and not six.subset([]).is_multi_label
    labels = np.random.default_rng(0).random((6, 2)) < 0.5
    files = replace(six, labels=labels)
    assert files.is_multi_label and files.labels.dtype == bool
    np.testing.assert_array_equal(files.subset([4, 1]).labels, labels[[1, 4]])
    assert files.subset([]).labels.shape == (0, 2) and files.subset([]).is_multi_label


def test_label_sets_are_encoded_as_columns():
    class_names, labels = layouts.encode_labels([("b10", "b9"), (), ("a",)])
    assert class_names == ("a", "b9", "b10") and labels.dtype == bool
    assert labels.tolist() == [[False, True, True], [False] * 3, [True, False, False]]


@pytest.mark.parametrize(
    ("indices", "match"),
    [
        ([0, 6], r"indices reach from \[0\] to \[6\]: expected 0 to 5"),
        ([-1], "expected 0 to 5"),
        ([0.5], "indices are float64: expected integers"),
        (np.ones(5, bool), r"the mask has shape \(5,\): expected \[6\]"),
    ],
)
def test_subset_refuses(six, indices, match):
    with pytest.raises(ValueError, match=match):
        six.subset(indices)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": [0]}, r"number \(2, 1, 2\): expected one each per file"),
        ({"labels": [0, 2]}, "labels are 0 to 2: expected 0 to 1"),
        ({"labels": [-1, 0]}, "labels are -1 to 0: expected 0 to 1"),
        ({"labels": [0.0, 1.0]}, "labels are float64: expected integers"),
        ({"labels": [True, False]}, "labels are bool: expected integers"),
        ({"labels": [[True], [False]]}, r"labels are bool of shape \(2, 1\): expected 2 columns"),
        ({"labels": [[True, False]]}, r"number \(2, 1, 2\): expected one each per file"),
        ({"splits": ["train", "val"]}, "unknown splits 'val': expected train, validation, test or None"),
    ],
)
def test_image_files_refuse(tmp_path, changes, match):
    fields = dict(root=tmp_path, class_names=("a", "b"), names=("1", "2"), labels=[0, 1], splits=(None, None))
    with pytest.raises(ValueError, match=match):
        ImageFiles(**fields | changes)


def test_check_images_leaves_the_bad_out(six, tmp_path, capfd):
    (tmp_path / "cat/1.jpg").write_bytes(b"words")
    (tmp_path / "dog/2.jpg").write_bytes(JPEG[:-40])
    good, bad = check_images(six, max_bad=1 / 3)
    assert good.names == ("cat/0.jpg", "cat/2.jpg", "dog/0.jpg", "dog/1.jpg")
    assert good.labels.tolist() == [0, 0, 1, 1]
    assert [name for name, _ in bad] == ["cat/1.jpg", "dog/2.jpg"]
    assert "not an image" in bad[0][1] and "truncated" in bad[1][1]
    assert capfd.readouterr().out == ""


def test_check_images_refuses_too_many_bad(six, tmp_path):
    for i in range(3):
        (tmp_path / f"cat/{i}.jpg").write_bytes(b"words")
        (tmp_path / f"dog/{i}.jpg").unlink()
    match = r"6 of 6 images cannot be read, more than 1.00%: 'cat/0.jpg': not an image.*'dog/1.jpg': No such"
    with pytest.raises(ValueError, match=match + ".*with --max-bad 1$") as error:
        check_images(six, progress=False)
    assert "dog/2" not in str(error.value)  # the first five
    assert check_images(six, max_bad=1, progress=False)[0].names == ()


def test_check_images_allows_the_share_itself(six, tmp_path):
    (tmp_path / "cat/1.jpg").write_bytes(b"words")
    assert len(check_images(six, 1 / 6, progress=False)[0]) == 5
    with pytest.raises(ValueError, match="1 of 6 images .* more than 16.00%.*--max-bad 0.167$"):
        check_images(six, 0.16, progress=False)


def test_check_images_notes_copies(tmp_path):
    groups = {
        "train/cat/1.jpg train/dog/1.jpg": "with different labels",
        "train/cat/2.jpg val/cat/2.jpg": "in different splits",
        "train/cat/3.jpg train/cat/4.jpg": "with the same label",
        "train/dog/5.jpg": None,
        "val/dog/6.jpg": None,
    }
    for i, names in enumerate(groups):
        write(tmp_path, names.split(), to_bytes(Image.new("RGB", (4, 4), (i, 0, 0))))
    write(tmp_path, ["train/dog/7.jpg", "train/dog/8.jpg"], b"words")  # bad ones do not count
    files = replace(find_images(tmp_path), notes=("an earlier note",))
    good, _ = check_images(files, max_bad=0.5, progress=False)
    assert good.notes[0] == "an earlier note" and len(good.notes) == 4
    for (names, where), note in zip(groups.items(), good.notes[1:]):
        first, second = names.split()
        assert note.startswith(f"1 image occurs several times {where}")
        assert note.endswith(f"such as {first!r} and {second!r}")


@pytest.mark.parametrize("max_bad", [-0.1, 1.1, "0.1", None, float("nan")])
def test_check_images_refuses_max_bad(six, max_bad):
    with pytest.raises(ValueError, match="`max_bad` must be a number in \\[0, 1\\]"):
        check_images(six, max_bad, progress=False)


def test_check_images_is_interrupted_at_once(six, monkeypatch):
    release, started = threading.Event(), []
    others = threading.enumerate()

    def interrupt_and_hang(data):
        started.append(data)
        if len(started) == 1:
            time.sleep(0.1)  # a signal while Python starts the threads may be lost
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        release.wait(30)

    files = [six.root, six.class_names, six.names[:1] * 300, [0] * 300, [None] * 300]
    monkeypatch.setattr(image_checks, "decode", interrupt_and_hang)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            check_images(ImageFiles(*files))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - start < 15
    release.set()
    for thread in set(threading.enumerate()) - set(others):
        thread.join(10)
    assert len(started) <= 16  # those that had begun
