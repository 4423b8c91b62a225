"""`write_shards`: labelled images as shards with an index, resumable after a stop."""

import errno
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit_tf import files as disk
from vit_tf import terminal
from vit_tf.checks import brief, check_choice, check_int, check_number, require
from vit_tf.cores import num_cores
from vit_tf.data.dataset_notes import copy_notes
from vit_tf.data.fingerprints import data_fingerprint
from vit_tf.data.image_checks import MAX_THREADS, content_digest, require_few
from vit_tf.data.image_files import find_images
from vit_tf.data.shards.shard_files import KINDS
from vit_tf.data.shards.shard_index import WORK, write_index
from vit_tf.data.shards.shard_job import ROW, Done, ShardJob, as_label
from vit_tf.data.shards.shard_table import PART_NAMES, ShardTable
from vit_tf.preprocessing.decode import decode

ORDER_SEED = 0
NUM_THREADS = min(num_cores() + 1, MAX_THREADS)


@dataclass(frozen=True)
class WrittenShards:
    """What `write_shards` has written.

    Args:
        num_images, num_shards, num_bytes: of the shards.
        bad: (name, reason) of the images that were left out.
        notes: as of `check_images`.
    """

    num_images: int
    num_shards: int
    num_bytes: int
    bad: list[tuple[str, str]]
    notes: tuple[str, ...]


def write_shards(
    source: str | os.PathLike,
    out: str | os.PathLike,
    format: str = "arrayrecord",
    shard_mb: int = 256,
    max_bad: float = 0.01,
    progress: bool = True,
) -> WrittenShards:
    """Writes labelled images as shards, which `find_images` and all commands read like a folder.

    The bytes of the images stay as they are. Each image is decoded once, so that the check of all images
    need not be repeated; unreadable ones are left out. Images of a split are in shards of their own, such as
    `train-000012.arrayrecord`, in a random order that is always the same, so that programs that read shards
    from front to back see all classes. The index is written last of all. After a stop, the same call keeps
    the finished shards, compares them with their hashes, and continues.

    Args:
        source: path of what `find_images` finds: a folder, zip, table or other shards.
        out: path of the folder to write, which must not exist, or be empty or an unfinished one of this call.
        format: "arrayrecord", or "webdataset" for tar files of `KEY.jpg`, `KEY.cls` and `KEY.json`.
        shard_mb: int, megabytes of images after which a shard ends.
        max_bad: maximum fraction of unreadable images, 0 to 1.
        progress: bool, whether to show a progress bar on stderr.

    Raises:
        ValueError: an argument is wrong, `out` holds something else, or there are too many unreadable images.
        OSError: the disk is full, or a file cannot be written. Finished shards are kept.
    """
    check_choice("format", format, KINDS)
    check_int("shard_mb", shard_mb, 1)
    check_number("max_bad", max_bad, "[0, 1]")
    files, out = find_images(source), Path(out)
    is_inside = Path(os.path.realpath(source)) in Path(os.path.realpath(out)).parents
    require(not is_inside, f"{str(out)!r} lies in the images themselves: choose a folder outside of them")
    options = {"format": format, "shard_mb": shard_mb}
    with ShardJob.opened(out, files, options) as job, kept_when_full(job):
        done = job.finished_shards(progress)
        require_room(files, done, out)
        write_missing(files, job, done, max_bad, progress)
        return finish(files, job, done)


@contextmanager
def kept_when_full(job: ShardJob) -> Iterator[None]:
    """A scope whose error of a full disk says what is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            raise
        kept = "the finished shards are kept: make room, and run the same command again"
        raise OSError(error.errno, f"{error.strerror}; {kept}", str(job.folder)) from error


def require_room(files, done, out):
    """Raises an OSError unless the disk has room for the images that are not in finished shards."""
    container, total = files.container, 0
    written = np.concatenate([np.zeros(0, int), *(shard.rows["index"] for shard in done)])
    for i in np.setdiff1d(np.arange(len(files)), written):
        try:
            total += container.state(files.names[i])[0]
        except (OSError, ValueError):  # reported when it is read
            continue
    disk.require_space(out, total)


def write_missing(files, job, done, max_bad, progress):
    """Writes the shards that are not done, and adds them to the list `done`."""
    bad = [pair for shard in done for pair in shard.bad]
    count = sum(shard.stop - shard.start for shard in done)
    with ThreadPoolExecutor(NUM_THREADS) as pool, progress_bar(len(files), count, progress) as step:
        for part, order in parts_in_order(files):
            own = [shard for shard in done if shard.part == part]
            number, start = len(own), own[-1].stop if own else 0
            images = in_order(pool, files, order[start:], step)
            while start < len(order):
                shard = write_shard(files, job, part, number, start, images, bad, max_bad)
                done.append(shard)
                number, start = number + 1, shard.stop


def parts_in_order(files):
    """Yields (name of the part, indices of its images in the order of the shards)."""
    parts = np.array([PART_NAMES.index(split) for split in files.splits])
    for code, name in enumerate(PART_NAMES):
        indices = np.flatnonzero(parts == code)
        if len(indices):
            yield name or "images", np.random.default_rng((ORDER_SEED, code)).permutation(indices)


@contextmanager
def progress_bar(total, count, progress):
    """A scope with a function that advances a bar by one image; `count` images are done already."""
    steps = iter(terminal.track(range(total), "writing shards", disable=not progress))
    for _ in range(count):
        next(steps)
    try:
        yield lambda: next(steps, None)
    finally:
        steps.close()


def in_order(pool, files, indices, step):
    """Yields (index, bytes, hashes, reason) of images, which threads read and decode: see `read_image`."""
    waiting = deque()
    for i in indices.tolist():
        waiting.append((i, pool.submit(read_image, files, i)))
        if len(waiting) >= 4 * NUM_THREADS:
            i, task = waiting.popleft()
            yield i, *task.result()
            step()
    for i, task in waiting:
        yield i, *task.result()
        step()


def read_image(files, i):
    """Returns (bytes, hashes, "") of an image, or (None, None, the reason why it cannot be read).

    The hashes are its fingerprint and a digest of the content.
    """
    container = files.container
    try:
        data = files.read(i)
        if not (container is not None and container.is_checked):
            decode(data)
    except OSError as error:
        return None, None, error.strerror or brief(error)
    except ValueError as error:
        return None, None, brief(error)
    return data, (data_fingerprint(data), content_digest(data)), ""


def write_shard(files, job, part, number, start, images, bad, max_bad):
    """Writes the next shard of a part, completely or not at all; returns it as `Done`.

    `bad` is the list of all unreadable images so far, to which those of the shard are added.
    """
    rows, own_bad, num_bytes, stop = [], [], 0, start
    path = job.partial_path(part, number)
    writer = None
    try:
        for i, data, hashes, reason in images:
            stop += 1
            if reason:
                own_bad.append((files.names[i], reason))
                require_few(bad + own_bad, max_bad, len(files))
                continue
            writer = writer or KINDS[job.format][1](path)
            place = writer.write(files.names[i], data, as_label(files, i))
            rows.append((i, place, len(data), *hashes))
            num_bytes += len(data)
            if num_bytes >= job.shard_bytes:
                break
        if writer:
            writer.close()
    except BaseException:
        with suppress(OSError):  # the first error counts
            if writer:
                writer.close()
        path.unlink(missing_ok=True)
        raise
    bad += own_bad
    return job.keep(Done(part, number, start, stop, np.array(rows, ROW), own_bad))


def finish(files, job, done):
    """Writes the index, removes what is left of the work, and returns `WrittenShards`."""
    done = sorted(done, key=lambda shard: (shard.part, shard.number))
    with_images = [shard for shard in done if len(shard.rows)]
    rows = np.concatenate([np.zeros(0, ROW), *(shard.rows for shard in with_images)])
    shards = np.repeat(np.arange(len(with_images)), [len(shard.rows) for shard in with_images])
    order = np.argsort(rows["index"])
    rows, shards = rows[order], shards[order].astype(np.int32)
    digests = np.zeros(len(files), "S16")
    digests[rows["index"]] = rows["digest"]
    notes = (*files.notes, *copy_notes(files, digests, digests != b""))
    good = files.subset(rows["index"])
    require(len(good), "no image can be read")
    parts = np.array([PART_NAMES.index(split) for split in good.splits], np.uint8)
    columns = (rows["place"], rows["size"], rows["fingerprint"])
    table = ShardTable(good.names, good.labels, parts, shards, *columns)
    bad = [pair for shard in done for pair in shard.bad]
    if bad:
        disk.write_csv(job.folder / "bad_files.csv", ("path", "reason"), bad)
    described = [job.describe(shard) for shard in with_images]
    write_index(job.folder, job.format, files.class_names, notes, described, table)
    shutil.rmtree(job.folder / WORK)
    num_bytes = sum(shard["bytes"] for shard in described)
    return WrittenShards(len(good), len(with_images), num_bytes, bad, notes)
