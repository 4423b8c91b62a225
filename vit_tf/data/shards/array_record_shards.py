"""ArrayRecord files: records of bytes, read by their number; grain reads them as well."""

import errno
import os
from contextlib import contextmanager

from vit_tf.checks import brief, require

ARRAY_RECORD_ENDING = ".arrayrecord"
WRITER_OPTIONS = "group_size:1,uncompressed"  # images do not get smaller, and grain reads single records
READER_OPTIONS = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 1 << 15}  # as grain's


class RecordWriter:
    """Writes an ArrayRecord file with one record per image.

    Args:
        path: of the new file.
    """

    def __init__(self, path):
        self._path, self._count = os.fspath(path), 0
        with disk_errors(self._path):
            self._writer = array_record_module().ArrayRecordWriter(self._path, WRITER_OPTIONS)

    def write(self, name, data, label):
        """Adds an image; returns the number of its record. The index has its name and its label."""
        with disk_errors(self._path):
            self._writer.write(data)
        self._count += 1
        return self._count - 1

    def close(self):
        with disk_errors(self._path):
            self._writer.close()


class RecordReader:
    """Reads records by their number. Several threads may read at the same time."""

    def __init__(self, path):
        self._reader = array_record_module().ArrayRecordReader(os.fspath(path), **READER_OPTIONS)
        require(self._reader.ok(), "not an ArrayRecord file, or damaged")

    def read(self, place, size):
        try:
            return self._reader.read([place])[0]
        except (RuntimeError, IndexError) as error:
            problem = brief(error, 200)
        raise ValueError(problem)


@contextmanager
def disk_errors(path):
    """A scope in which the errors of the library, all RuntimeErrors, become OSErrors."""
    try:
        yield
    except RuntimeError as error:
        is_full = os.strerror(errno.ENOSPC) in str(error)
        number = errno.ENOSPC if is_full else errno.EIO
        raise OSError(number, os.strerror(number), path) from error


def array_record_module():
    """Returns the library; a ValueError if it is not installed, as on Windows."""
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        hint = "install array_record, which Windows does not have, or use --format webdataset"
        raise ValueError(
            f"ArrayRecord shards need the package array_record ({brief(error)}): {hint}"
        ) from error
    return array_record_module
