"""Fingerprints of image files, which detect changes cheaply: the size, and a hash of parts of the file."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from vit_tf.files import open_regular

BLOCK = 1 << 14  # bytes
NUM_BLOCKS = 5  # of a large file; a smaller file is read completely
NUM_THREADS = 16  # the threads mostly wait for the disk
IMAGES_PER_TASK, TASKS_AT_ONCE = 64, 256


def fingerprints(files):
    """Yields a fingerprint, a str, for each image of `ImageFiles`; "" for an unreadable file.

    In a zip, a fingerprint is the size and the checksum in the zip's directory; shards list it in their
    index; and `check_images` computes it from the bytes that it reads. Then no file is read. Otherwise it is
    the size and a hash of five blocks of 16 kB, spread over the file. Other content of a compressed image
    changes the hash, but a changed pixel of a large uncompressed image may be missed.
    """
    if files.known_fingerprints is not None:
        for fingerprint in files.known_fingerprints:
            yield fingerprint.decode()
        return
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        at_once = IMAGES_PER_TASK * TASKS_AT_ONCE
        for start in range(0, len(files), at_once):
            stop = min(start + at_once, len(files))
            tasks = [range(i, min(i + IMAGES_PER_TASK, stop)) for i in range(start, stop, IMAGES_PER_TASK)]
            for texts in pool.map(partial(fingerprints_of, files), tasks):
                yield from texts


def fingerprints_of(files, indices):
    container = files.container
    if container is not None:
        return [container.fingerprint(files.names[i]) for i in indices]
    return [read_fingerprint(files, i) for i in indices]


def read_fingerprint(files, i):
    """Returns the fingerprint of an image whose bytes a user's function reads."""
    try:
        return data_fingerprint(files.read(i))
    except (OSError, ValueError):
        return ""


def file_fingerprint(folder, name):
    """Returns the fingerprint of a file; "" if the file cannot be read."""
    path = os.path.join(folder, name)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.blake2b(digest_size=8)
            for start in block_starts(size):
                file.seek(start)
                digest.update(file.read(BLOCK))
    except (OSError, ValueError):
        return ""
    return f"{size}-{digest.hexdigest()}"


def data_fingerprint(data):
    """Returns the fingerprint of a file whose bytes are known."""
    view, digest = memoryview(data), hashlib.blake2b(digest_size=8)
    for start in block_starts(len(data)):
        digest.update(view[start : start + BLOCK])
    return f"{len(data)}-{digest.hexdigest()}"


def block_starts(size):
    """Returns the offsets of the blocks that are hashed."""
    if size <= NUM_BLOCKS * BLOCK:
        return range(0, size, BLOCK)
    return [(size - BLOCK) * i // (NUM_BLOCKS - 1) for i in range(NUM_BLOCKS)]
