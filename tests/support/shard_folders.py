"""Small folders of images and their shards, and a job that is killed.

    PYTHONPATH=.:tests python -m support.shard_folders SOURCE OUT FORMAT KILL_AFTER

writes shards, and ends by SIGKILL when KILL_AFTER images have been read.
"""

import os
import signal
import sys

import numpy as np
from PIL import Image

from support.image_folders import to_bytes, write

HOSTILE = (
    "a.b.c.png",
    "line\nbreak.png",
    "кошка 狗.png",
    "%2E.png",
    os.fsdecode(b"caf\xe9.png"),
    "a" * 200 + ".png",
)


def make_images(root, per_class=6, seed=0, names=None):
    """Writes PNGs of noise in train and val folders of two classes; returns the root."""
    generator = np.random.default_rng(seed)
    for split in ("train", "val"):
        for label in ("cat", "dog.v2"):
            for name in names or [f"{i}.png" for i in range(per_class)]:
                pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                write(root, [f"{split}/{label}/{name}"], to_bytes(Image.fromarray(pixels)))
    return root


def main(source, out, format, kill_after):
    from vit_tf.data import write_shards
    from vit_tf.data.shards import shard_job, shard_writing

    shard_job.MEGABYTE = 1000
    count, read = 0, shard_writing.read_image

    def read_and_die(*args):
        nonlocal count
        count += 1
        if count > int(kill_after):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(*args)

    shard_writing.read_image = read_and_die
    write_shards(source, out, format, 5, progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
