"""The check of all images before a run: which can be read, and which occur several times."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from vit_tf import terminal
from vit_tf.checks import brief, check_choice, check_number, require, shown
from vit_tf.data.check_cache import LEVELS, RECORD, CheckCache
from vit_tf.data.dataset_notes import copy_notes
from vit_tf.data.fingerprints import data_fingerprint
from vit_tf.data.image_files import ImageFiles
from vit_tf.preprocessing.decode import decode, open_image
from vit_tf.preprocessing.image_formats import detect_format

CHECKED_AT_ONCE = 4096  # bounds the memory of a million waiting tasks
SAVED_AT_ONCE = 512  # a stop loses the check of fewer images
MAX_THREADS = 16  # of 100-megapixel images each takes about 1 GB
END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"\0\0\0\0IEND\xaeB`\x82", "GIF": b";"}
PADDING = b"\0\r\n "  # some programs write it behind the end


def check_images(
    files: ImageFiles,
    max_bad: float = 0.01,
    progress: bool = True,
    level: str = "full",
    cached: bool = False,
) -> tuple[ImageFiles, list[tuple[str, str]]]:
    """Reads every image once, on all cores, and leaves out images that cannot be read.

    The notes of the result list images with the same bytes: with different labels, in different splits, or
    in the same class. Ctrl-C stops the check at once. The images of shards that `write_shards` wrote are not
    checked again.

    Args:
        files: `ImageFiles`.
        max_bad: maximum fraction of unreadable images, 0 to 1.
        progress: bool, whether to show a progress bar on stderr.
        level: "full" decodes every image. "headers" reads every file whole, but looks at its format, its size
            in pixels and its end only, so that damage inside of a file is missed. "none" opens no file; the
            fingerprints in the split of a folder are then empty.
        cached: bool, whether to keep the results in the user's cache folder, see
            `vit_tf.data.check_cache.CheckCache`, and to use those of earlier checks, also of interrupted
            ones. A file with another size or time than then is checked again, and so are unreadable files.

    Returns:
        (good, bad): the readable `ImageFiles`, with the new notes after those of `files`; and a list of
        (name, reason) in the order of the names.

    Raises:
        ValueError: there are more unreadable images than `max_bad` allows. The message lists the first five.
    """
    check_number("max_bad", max_bad, "[0, 1]")
    check_choice("level", level, ("none", *LEVELS))
    container = files.container
    if container is not None and container.is_checked:
        return files, []
    if level == "none":
        is_listed = container is not None and container.lists_fingerprints
        return files if is_listed else replace(files, known_fingerprints=np.zeros(len(files), "S1")), []
    cache = CheckCache(container.source) if cached and container is not None else None
    records, bad = check_all(files, level, progress, cache)
    is_good = np.ones(len(files), bool)
    is_good[[i for i, _ in bad]] = False
    bad = [(files.names[i], reason) for i, reason in bad]
    require_few(bad, max_bad, len(files))
    notes = (*files.notes, *copy_notes(files, records["digest"], is_good))
    if cache and cache.problem:
        notes += (f"the results of the check cannot be kept for later runs: {cache.problem}",)
    good = replace(files, notes=notes, known_fingerprints=records["fingerprint"]).subset(is_good)
    return good, bad


def require_few(bad, max_bad, num_images):
    """Raises a ValueError for a list of (name, reason) with more than a fraction of the images."""
    first = "; ".join(f"{shown(name)}: {reason}" for name, reason in bad[:5])
    problem = f"{len(bad):,} of {num_images:,} images cannot be read, more than {max_bad:.2%}: {first}"
    share = np.ceil(len(bad) / max(num_images, 1) * 1000) / 1000
    hint = f"repair or remove them, or leave them out with --max-bad {share:g}"
    require(len(bad) <= max_bad * num_images, f"{problem}; {hint}")


def check_all(files, level, progress, cache):
    """Returns the `RECORD`s of all files, and a list of (index, reason) of the unreadable ones."""
    records, waiting = np.zeros(len(files), RECORD), np.arange(len(files))
    if cache:
        waiting = cache.fill(records, files, level)
    bad, saved = [], 0
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS))
    try:
        checks = check_each(pool, files, waiting, level, cache is not None)
        checks = terminal.track(checks, "checking images", len(waiting), disable=not progress)
        for count, (i, reason, digest, fingerprint) in enumerate(checks, 1):
            if reason:
                bad.append((i, reason))
            records["digest"][i], records["fingerprint"][i] = digest, fingerprint
            if cache and count - saved == SAVED_AT_ONCE:
                cache.append(records[waiting[saved:count]], level)
                saved = count
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if cache:
        cache.append(records[waiting[saved:]], level)
    return records, bad


def check_each(pool, files, indices, level, has_state):
    """Yields (index, reason, digest, fingerprint) of files in order, see `check_file`."""
    check = partial(check_file, files, files.container, level, has_state)
    for start in range(0, len(indices), CHECKED_AT_ONCE):
        chunk = indices[start : start + CHECKED_AT_ONCE].tolist()
        for i, result in zip(chunk, pool.map(check, chunk)):
            yield i, *result


def check_file(files, container, level, has_state, i):
    """Returns why a file is unreadable, or "", a hash of its bytes, and its fingerprint."""
    name = files.names[i]
    try:
        data = container.read_after_state(name) if has_state else files.read(i)
        check_data(data, level)
    except OSError as error:
        return error.strerror or brief(error), b"", b""
    except ValueError as error:
        return brief(error), b"", b""
    fingerprint = data_fingerprint(data) if container is None else container.fingerprint(name, data)
    return "", content_digest(data), fingerprint


def content_digest(data):
    """Returns a hash of 16 bytes, which is equal for copies; processors have instructions for SHA-256."""
    return hashlib.sha256(data).digest()[:16]


def check_data(data, level):
    """Raises a ValueError unless the bytes of an image can be read; see the levels of `check_images`."""
    if level == "full" or not looks_whole(data):
        decode(data)


def looks_whole(data):
    """Whether an image has a header and the end of its format; False for formats without an end marker."""
    try:
        marker = END_MARKERS.get(detect_format(data).name)
        if marker is None or not data[-1024:].rstrip(PADDING).endswith(marker):
            return False  # there may be more behind the end
        open_image(data)
    except Exception:  # Pillow's readers raise nearly everything
        return False
    return True
