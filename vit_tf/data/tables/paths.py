"""Finds the image files that the cells of a table name."""

import contextlib
import os
import posixpath
import unicodedata
from functools import cached_property

from vit_tf.checks import quoted, require, shown
from vit_tf.data.directory_layout import is_ignored
from vit_tf.data.tables.text import as_text, is_foreign
from vit_tf.preprocessing import image_formats as formats

ENDINGS = tuple(ending for suffix in formats.ENDINGS for ending in (suffix, suffix.upper()))


class ImageFinder:
    """Finds the image files that a table names, by their paths, names or ids.

    Args:
        table: the path of the table, a `Path`. Paths in the table are relative to its folder.
    """

    def __init__(self, table):
        self.table, self.folder = table, os.fspath(table.parent)

    def find(self, cell):
        """Returns the path of a file, relative to the table's folder or absolute; None if it does not exist.

        A cell may omit the ending and the folders. The file is then searched in the table's folder and two
        levels below.

        Raises:
            ValueError: several files match.
        """
        for path in spellings(cell):
            if os.path.isfile(os.path.join(self.folder, path)):
                return posixpath.normpath(path)
            if "/" in path:
                for ending in ENDINGS:
                    if os.path.isfile(os.path.join(self.folder, path + ending)):
                        return posixpath.normpath(path + ending)
        matches = {name for path in spellings(cell) for name in self.nearby(path)}
        if len(matches) > 1:
            matches = {name for name in matches if self.is_for_this_table(name)} or matches
        hint = "write folder and ending into the table"
        require(len(matches) < 2, f"{shown(cell)} may be {quoted(sorted(matches))}: {hint}")
        return next(iter(matches), None)

    def nearby(self, path):
        """Returns the files below the folder whose path ends in `path`, with their ending or without."""
        tail = posixpath.normpath(path)
        names = self.files.get(tail.rpartition("/")[2], ())
        return [n for n in names if any(f"/{whole}".endswith(f"/{tail}") for whole in (n, stem(n)))]

    @cached_property
    def files(self):
        """The image files in the folder and two levels below: {name with or without its ending: [paths]}."""
        paths, waiting = {}, [("", 0)]
        while waiting:
            folder, depth = waiting.pop()
            try:
                entries = sorted(os.scandir(os.path.join(self.folder, folder)), key=lambda entry: entry.name)
            except OSError:  # the files are reported as missing later
                continue
            for entry in entries:
                name = posixpath.join(folder, entry.name)
                if is_ignored(entry.name):
                    continue
                if entry.is_dir():
                    waiting += [(name, depth + 1)] if depth < 2 else []
                elif name.lower().endswith(formats.ENDINGS) and entry.is_file():
                    for key in {entry.name, stem(entry.name)}:
                        paths.setdefault(key, []).append(name)
        return paths

    def is_for_this_table(self, name):
        """Whether an image lies in a folder with the table's name, as train/ for train_labels.csv."""
        table, folder = self.table.stem.lower(), name.lower().partition("/")[0]
        return "/" in name and (table.startswith(folder) or folder.startswith(table))

    def identity(self, name):
        """Returns a key that is equal for all spellings of a path and all links to the file."""
        path = os.path.join(self.folder, name)
        status = os.stat(path)
        return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def stem(name):
    return name.rpartition(".")[0] if name.lower().endswith(formats.ENDINGS) else name


def spellings(cell):
    """Yields the possible paths of a cell: as written, with Windows' slashes, in other encodings."""
    yield cell
    path = cell.replace("\\", "/")
    if path != cell:
        yield path
    if is_foreign(path):
        with contextlib.suppress(ValueError):  # not text, but perhaps a path
            path = as_text(path)
            yield path
    if not path.isascii():
        yield from (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
