"""Tar files as WebDataset has them: uncompressed, the files of a sample next to each other.

A sample is `KEY.jpg` with `KEY.cls`, the index of its class, and `KEY.json`. WebDataset ends a key at the
first dot of the file's name.
"""

import hashlib
import io
import json
import os
import re
import tarfile
import weakref

from vit_tf.checks import require
from vit_tf.data.directory_layout import ending
from vit_tf.preprocessing.image_formats import detect_format, readable_endings

TAR_ENDING = ".tar"
BLOCK = 512  # bytes; members are padded to it
PLAIN = re.compile(r"[A-Za-z0-9_/-]{1,90}")  # longer names need more headers


class TarWriter:
    """Writes a tar. The same samples give the same bytes: times and owners are those of nobody.

    Args:
        path: of the new file.
    """

    def __init__(self, path):
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)
        self._keys = set()

    def write(self, name, data, label):
        """Adds an image with its label, see `label_entries`; returns the offset of its bytes."""
        key = self._new_key(name)
        offset = self._add(key + image_ending(name, data), data)
        for suffix, text in label_entries(name, label).items():
            self._add(key + suffix, text.encode("ascii"))
        return offset

    def close(self):
        self._tar.close()

    def _new_key(self, name):
        stem = name.removesuffix(name[len(name) - len(ending(name)) :])
        key = next(key for key in (escaped(stem), escaped(name)) if key not in self._keys)
        self._keys.add(key)
        return key

    def _add(self, name, data):
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
        return self._tar.offset - -(-len(data) // BLOCK) * BLOCK


class TarReader:
    """Reads bytes of a tar by their offset. Several threads may read at the same time."""

    def __init__(self, path):
        self._path, self._file = path, None
        if hasattr(os, "pread"):
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._file)  # when no thread reads from it any more

    def read(self, place, size):
        if self._file is not None:
            data = os.pread(self._file, size, place)
        else:  # Windows: threads would share one position
            with open(self._path, "rb") as file:
                file.seek(place)
                data = file.read(size)
        require(len(data) == size, "the file ends before the image: it is truncated")
        return data


def escaped(name):
    """Returns a name as the key of a sample: without dots, and of plain ASCII."""
    data = name.encode("utf-8", "surrogateescape")
    key = re.sub(rb"[^A-Za-z0-9_/-]", lambda match: b"%%%02X" % match[0][0], data).decode()
    return key if len(key) <= 90 else hashlib.blake2b(data, digest_size=16).hexdigest()


def image_ending(name, data):
    """Returns the ending of an image's member: that of its name, or of its format if the name has none."""
    known = ending(name)
    return known if known in readable_endings() else detect_format(data).endings[0]


def label_entries(name, label):
    """Returns {ending: text} of the files beside an image, whose label is a dict of `as_label`."""
    entries = {".cls": str(label["label"])} if "label" in label else {}
    return {**entries, ".json": json.dumps({"name": name, **label})}
