"""Fingerprints of image files, which detect changes cheaply: the size, and a hash of parts of the file."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from vit_tf.data.zip_archive import ImageArchive
from vit_tf.files import open_regular

BLOCK = 1 << 14  # bytes
NUM_BLOCKS = 5  # of a large file; a smaller file is read completely
NUM_THREADS = 16  # the threads mostly wait for the disk


def fingerprints(files):
    """Returns a fingerprint, a str, for each image of `ImageFiles`; "" for an unreadable file.

    In a zip, a fingerprint is the size and the checksum in the zip's directory, so no file is read. Otherwise
    it is the size and a hash of five blocks of 16 kB, spread over the file. Other content of a compressed
    image changes the hash, but a changed pixel of a large uncompressed image may be missed.
    """
    archive = getattr(files.reader, "__self__", None)
    if isinstance(archive, ImageArchive):
        return [archive.fingerprint(name) for name in files.names]
    folder = files.root if files.root.is_dir() else files.root.parent
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(partial(file_fingerprint, folder), files.names))


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


def block_starts(size):
    """Returns the offsets of the blocks that are hashed."""
    if size <= NUM_BLOCKS * BLOCK:
        return range(0, size, BLOCK)
    return [(size - BLOCK) * i // (NUM_BLOCKS - 1) for i in range(NUM_BLOCKS)]
