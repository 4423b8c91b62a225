import io

import numpy as np
import pytest
from PIL import Image
from support.batches import assert_equal

from vit_tf.data import decoded_images
from vit_tf.data.augment.image import RandomResizedCrop
from vit_tf.data.decoded_images import CachedImages, DecodedImages
from vit_tf.data.loader import DataLoader


class Files:
    """JPEG files of several sizes in memory."""

    def __init__(self, sizes):
        self.names = [f"{i}.jpg" for i in range(len(sizes))]
        self.data = []
        for i, size in enumerate(sizes):
            noise = np.random.default_rng(i).integers(0, 256, (3, 4, 3), "uint8")
            buffer = io.BytesIO()
            Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG")
            self.data.append(buffer.getvalue())
        self.reads = []

    def __len__(self):
        return len(self.names)

    def read(self, index):
        self.reads.append(index)
        return self.data[index]


SIZES = [(40, 30), (30, 40), (20, 18), (64, 32)] * 5


def test_images_decode_files():
    files = Files(SIZES)
    images = DecodedImages(files)
    assert len(images) == 20 and images[1].size == (30, 40) and images[1].mode == "RGB"
    np.testing.assert_array_equal(images[3], Image.open(io.BytesIO(files.data[3])))
    files.data[2] = b"no image"
    with pytest.raises(ValueError, match="2.jpg"):
        images[2]
    crops = DataLoader(images, np.zeros(20, int), 1, 8, RandomResizedCrop((16, 24)), num_threads=3)
    with pytest.raises(ValueError, match="2.jpg"):
        list(crops.epoch())
    files.data[2] = files.data[1]
    assert [x.shape for x, _ in crops.epoch()] == [(8, 16, 24, 3), (8, 16, 24, 3), (4, 16, 24, 3)]


def test_cached_images_are_decoded_once_and_scaled_down():
    files = Files(SIZES)
    cached = CachedImages(DecodedImages(files), 24)
    assert len(cached) == 20
    first, second = ([cached[i] for i in range(20)] for _ in range(2))
    assert sorted(files.reads) == list(range(20))
    for array, again, (w, h), image in zip(first, second, SIZES, DecodedImages(files)):
        assert array is again and array.dtype == np.uint8 and not array.flags.writeable
        scale = min(24 / min(h, w), 1)
        assert array.shape == (round(h * scale), round(w * scale), 3)
        expected = image.resize(array.shape[1::-1], Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(array, expected)


def test_a_cache_that_does_not_fit_is_refused(monkeypatch):
    images = DecodedImages(Files([(40, 30)] * 20))
    needed = 20 * 3 * 24 * 32
    monkeypatch.setattr(decoded_images, "free_memory", lambda: 2 * needed)
    CachedImages(images, 24)
    monkeypatch.setattr(decoded_images, "free_memory", lambda: 2 * needed - 2)
    message = f"20 images of 24 pixels need about {needed:,} bytes .* {needed - 1:,}: choose a smaller"
    with pytest.raises(ValueError, match=message):
        CachedImages(images, 24)
    monkeypatch.setattr(decoded_images, "free_memory", lambda: None)  # a system without that information
    assert len(CachedImages(images, 24)) == 20


def test_batches_of_a_cache_equal_those_of_the_images():
    images = DecodedImages(Files([(40, 30)] * 20))

    def epoch(source):
        return list(DataLoader(source, np.zeros(20, int), 1, 8, RandomResizedCrop(8), shuffle=True).epoch())

    assert_equal(epoch(CachedImages(images, 30)), epoch(images))


def test_bad_side():
    with pytest.raises(ValueError, match="`side`"):
        CachedImages([], 0)
