import threading
import time

import numpy as np
import pytest
from support.batches import (
    BATCH,
    CLASSES,
    COUNT,
    LABELS,
    assert_equal,
    augmented,
    batches,
    each_setting,
    images,
    shuffled_in_time,
)

from vit_tf.data.augment.mixing import CutMix, MixUp, MixUpCutMix, blend
from vit_tf.data.loader import DataLoader


def identity(batch):
    """Returns which image each of a batch is."""
    return batch[:, 0, 0, 0] % 32


def threads_of_grain():
    return [thread for thread in threading.enumerate() if "grain" in thread.name]


def assert_no_threads():
    deadline = time.monotonic() + 5  # they end when their present image is done
    while threads_of_grain() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads_of_grain()


@each_setting
def test_resume_at_any_batch_is_the_tail_of_the_epoch(settings):
    whole = list(batches(**settings).epoch(2))
    assert len(whole) == len(batches(**settings)) == 5
    for start in range(6):
        assert_equal(list(batches(**settings).epoch(2, start)), whole[start:])
    assert_equal(list(batches(**settings, num_threads=1).epoch(2)), whole)


def test_epochs_and_seeds_differ_in_order_augmentation_and_mixing():
    def order(epoch, seed):
        return np.concatenate([identity(x) for x, _ in batches(seed=seed).epoch(epoch)]).tolist()

    # Epoch 1 of seed 5 is not epoch 0 of seed 6, either.
    orders = [order(epoch, seed) for epoch, seed in ((0, 5), (1, 5), (0, 6), (1, 6))]
    assert len({tuple(each) for each in orders}) == 4
    assert order(1, 5) == orders[1]

    for settings in ({"transform": augmented}, {"mix": MixUpCutMix()}):
        draws = [
            next(batches(shuffle=False, seed=seed, **settings).epoch(epoch))[0].tobytes()
            for epoch, seed in ((0, 5), (1, 5), (0, 6), (1, 6))
        ]
        assert len(set(draws)) == 4


def test_images_are_augmented_each_on_its_own():
    """The same image at two positions, and the order and the mixing, draw different numbers."""
    draws = []

    def recorded(first, *rest):
        draws.append(rest[-1].integers(2**62))
        return first if len(rest) == 1 else (first, rest[0])

    mixed = DataLoader(images(), LABELS, CLASSES, BATCH, recorded, recorded, shuffle=True, seed=5)
    for epoch in (0, 1):
        list(mixed.epoch(epoch))
    assert len(draws) == len(set(draws)) == 2 * (COUNT + 5)


@each_setting
def test_every_image_once_an_epoch_with_its_label(settings):
    settings = {**settings, "mix": None, "transform": settings.get("transform") and shuffled_in_time}
    for epoch in (0, 3):
        seen = []
        for x, y in batches(**settings).epoch(epoch):
            assert y.dtype == np.float32 and y.shape == (len(x), CLASSES)
            np.testing.assert_array_equal(x, images()[identity(x)])
            np.testing.assert_array_equal(y, np.eye(CLASSES)[LABELS[identity(x)]])
            seen.append(identity(x))
        assert [len(batch) for batch in seen] == [6, 6, 6, 6, 5]
        seen = np.concatenate(seen)
        np.testing.assert_array_equal(np.sort(seen), np.arange(COUNT))
        assert (seen == np.arange(COUNT)).all() == (not settings.get("shuffle", True))


def test_first_places_are_uniform():
    first = [batches().order(epoch)[0] for epoch in range(1000)]
    counts = np.bincount(first, minlength=COUNT)
    assert abs(counts - 1000 / COUNT).max() < 4 * 5.8  # four deviations of the binomial


def test_an_array_and_a_list_have_the_same_order():
    as_sequence = DataLoader(list(images()), LABELS, CLASSES, BATCH, shuffle=True, seed=5)
    assert_equal(list(as_sequence.epoch(1)), list(batches().epoch(1)))


def test_mix_gets_the_whole_batch():
    plain = list(batches().epoch(0))
    mixed = list(batches(transform=shuffled_in_time, mix=lambda x, y, _: (x + 0.5, y[::-1])).epoch(0))
    assert_equal(mixed, [(x + 0.5, y[::-1]) for x, y in plain])
    big = batches(mix=MixUpCutMix(), batch_size=100)
    assert len(big) == 1 and next(big.epoch())[0].shape == (COUNT, 6, 8, 3)


@pytest.mark.parametrize("transform", [None, augmented], ids=["array", "images"])
def test_threads_end_with_the_iterator(transform):
    iterator = batches(transform).epoch()
    next(iterator)
    assert threads_of_grain()
    iterator.close()
    assert_no_threads()
    iterator = batches(transform).epoch()
    next(iterator)
    del iterator
    assert_no_threads()
    list(batches(transform).epoch())
    assert_no_threads()


class OddError(Exception):
    pass


@pytest.mark.parametrize("place", ["transform", "mix", "images"])
@pytest.mark.parametrize("error", [OddError, StopIteration, SystemExit])
def test_errors_come_to_the_consumer(place, error):
    calls = []

    def failing(*args):
        calls.append(args)
        if len(calls) == 4:
            raise error("that was it")
        return args[:-1] if len(args) == 3 else args[0]

    class FailingImages(list):
        def __getitem__(self, index):
            return failing(super().__getitem__(index), None)

    settings = {} if place == "images" else {place: failing}
    data = FailingImages(images()) if place == "images" else list(images())
    expected = OddError if error is OddError else RuntimeError
    with pytest.raises(expected, match="that was it"):
        list(DataLoader(data, LABELS, CLASSES, BATCH, num_threads=3, **settings).epoch())
    assert_no_threads()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": LABELS[:-1]}, r"got 29 images and labels int64 of shape \(28,\)"),
        ({"labels": LABELS.astype(float)}, "labels are float64"),
        ({"labels": np.eye(COUNT, dtype=int)}, "one integer label per image"),
        ({"images": [], "labels": np.zeros(0, int)}, "at least one image"),
        ({"images": iter([1])}, "`images` must be a sequence"),
        ({"num_classes": 3}, r"labels are 0 to 3: expected 0 to 2, one per class"),
        ({"labels": LABELS - 1}, "labels are -1 to 2: expected 0 to 3"),
        ({"num_classes": 0}, "`num_classes` must be a positive int, got 0"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"batch_size": 2.0}, "`batch_size`"),
        ({"seed": -1}, "`seed` must be an int from 0 to 4294967295, got -1"),
        ({"seed": 2**32}, "`seed`"),
        ({"num_threads": 0}, "`num_threads`"),
        ({"transform": "flip"}, "`transform` must be a callable or None, got 'flip'"),
        ({"mix": 0.8}, "`mix`"),
        ({"images": images().astype("float64")}, "got float64 of shape"),
        ({"images": images()[..., 0]}, r"images \(h, w, c\)"),
    ],
)
def test_bad_arguments(change, message):
    settings = {"images": images(), "labels": LABELS, "num_classes": CLASSES, "batch_size": BATCH}
    with pytest.raises(ValueError, match=message):
        DataLoader(**{**settings, **change})


@pytest.mark.parametrize(
    "epoch, start, message",
    [
        (-1, 0, "`epoch`"),
        (0.5, 0, "`epoch`"),
        (0, 6, "`start` must be an int from 0 to 5"),
        (0, -1, "`start`"),
    ],
)
def test_bad_epochs(epoch, start, message):
    with pytest.raises(ValueError, match=message):
        batches().epoch(epoch, start)


@pytest.mark.parametrize(
    "transform, message",
    [
        (
            lambda image, g: image[: g.integers(2, 5)],
            r"must have the same size, got \(2, 8, 3\) and \(4, 8, 3\)",
        ),
        (lambda image, g: None, "got object of shape"),
        (lambda image, g: image.astype("float64"), "got float64 of shape"),
        (lambda image, g: image[0], r"images \(h, w, c\)"),
    ],
)
def test_bad_images(transform, message):
    with pytest.raises(ValueError, match=message):
        list(batches(transform).epoch())


def test_batches_of_several_labels_and_their_mixing():
    """Each class's share is that of the images that have it."""
    images = np.arange(4 * 8 * 8 * 3).reshape(4, 8, 8, 3).astype("uint8")
    labels = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 1], [0, 1, 0]], bool)
    plain = DataLoader(images, labels, 3, 4)
    np.testing.assert_array_equal(next(plain.epoch())[1], labels.astype("float32"))
    for mix in (MixUp(), CutMix()):
        mixed, shares = DataLoader(images, labels, 3, 4, mix=mix, seed=5).batch(0, 0)
        kept = shares[0, 0]  # only the first of the first pair has this class
        assert 0 < kept < 1
        np.testing.assert_allclose(shares, kept * labels + (1 - kept) * labels[::-1], atol=1e-6)
        assert (mixed[0] != images[0]).any()
    with pytest.raises(
        ValueError, match=r"bool labels of shape \(4, 2\), one column per class, got 4 .* \(4, 3\)"
    ):
        DataLoader(images, labels, 2, 4)


# ---------------------------------------------------------------------------------------------------
# Several processes
# ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("has_transform", [False, True])
@pytest.mark.parametrize("start", [0, 2, 3])
def test_rows_of_processes_are_those_of_the_whole_batch(has_transform, start):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (13, 4, 4, 3)).astype("uint8"), rng.integers(0, 3, 13)

    def transform(image, generator):
        return image + generator.integers(0, 9, image.shape).astype("uint8")

    options = {"shuffle": True, "transform": transform if has_transform else None}
    loader = DataLoader(images, labels, 3, 4, **options)
    mixed = DataLoader(images, labels, 3, 4, mix=MixUpCutMix(), **options)
    halves = [np.s_[0::2], np.s_[1::2]]  # of the last batch of one image the second process has none
    padded = [lambda size, half=half: np.arange(-(-size // 2) * 2)[half] % size for half in halves]
    parts = zip(*(mixed.epoch(5, start, rows) for rows in padded))
    wholes = list(loader.epoch(5, start))
    batches = list(parts)
    assert len(batches) == len(wholes) == 4 - start
    for index, (batch, whole) in enumerate(zip(batches, wholes), start):
        size = mixed.batch_length(index)
        assert size == len(whole[0])
        for part, rows in zip(batch, padded):
            for array, expected in zip(part, whole):
                assert np.array_equal(array, expected[rows(size)])
        expected = mixed.batch(5, index)
        result = blend(*whole, mixed.draw_mixing(5, index, (4, 4)))
        assert all(np.array_equal(one, two) for one, two in zip(result, expected))
