"""CSV files of image paths and labels."""

import csv
import io
import os
import posixpath
from pathlib import Path

from vit_tf.data.cifar10 import _one_line, _require
from vit_tf.data.layouts import SPLIT_OF_NAME, some

_PATH_COLUMNS = ("path", "file", "filename", "image", "image_path")
_LABEL_COLUMNS = ("class_name", "class", "label", "target")  # names tell more than numbers, where both are
_EXPECTED = f"expected a column {'/'.join(_PATH_COLUMNS)} and one {'/'.join(_LABEL_COLUMNS)}"


def read_rows(path):
    """Returns [(line number, cells)] of a CSV in UTF-8, empty lines left out.

    Columns are parted by comma, semicolon or tab, whichever the first line has most of. Bytes that are not
    UTF-8 stay as `os.fsdecode` has them, since paths may hold such. Errors do not name the file.
    """
    text = Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")
    _require("\0" not in text, "not a CSV in UTF-8: save it as text, 'CSV UTF-8' in a spreadsheet")
    lines = io.StringIO(text, newline="")  # a quoted path may hold a line break
    first = text.lstrip().partition("\n")[0]
    reader = csv.reader(lines, delimiter=max(",;\t", key=first.count), strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        problem = _one_line(error)
    raise ValueError(f"line {reader.line_num} is no CSV ({problem}): mend its quotes")


def read_labels(path):
    """Returns {image path: (class_name, split or None)} of a CSV; image paths are relative to its folder.

    The columns are found by their header, or are path and label where there is none. A column `split`
    may say train, validation or test, in any of the usual spellings, or nothing.

    Raises:
        ValueError: columns, labels or splits that are missing or unknown, image files that do not exist,
            a path with two labels.
    """
    rows = read_rows(path)
    _require(rows, f"it has no lines: {_EXPECTED}")
    columns, has_header = _columns([cell.strip().lower() for cell in rows[0][1]])
    labelled, missing = {}, []
    for line, cells in rows[has_header:]:
        _require(len(cells) > max(columns), f"line {line} has {len(cells)} columns, fewer than the header")
        image, label, split = (cells[i].strip() if i >= 0 else "" for i in columns)
        _require(image and label, f"line {line} has no {'label' if image else 'path'}: fill it in")
        is_split = not split or split.lower() in SPLIT_OF_NAME
        _require(
            is_split, f"line {line} has the split {split!r}: expected train, validation, test or nothing"
        )
        name = _existing(Path(path).parent, image)
        if name is None:
            missing.append(image)
            continue
        entry = label, SPLIT_OF_NAME.get(split.lower())
        other = labelled.setdefault(name, entry)
        entries = [" in ".join(map(repr, filter(None, e))) for e in (other, entry)]
        found = f"{name!r} is {entries[0]} first and {entries[1]} in line {line}"
        _require(other == entry, f"{found}: keep one of them")
    hint = f"paths are relative to the CSV's folder; if the first line is a header, {_EXPECTED}"
    _require(not missing, f"{len(missing):,} of its files do not exist: {some(missing)}; {hint}")
    return labelled


def _columns(header):
    """Returns the indices of path, label and split (-1 without one), and whether `header` is a header."""
    found = [
        next((header.index(name) for name in names if name in header), -1)
        for names in (_PATH_COLUMNS, _LABEL_COLUMNS, ("split",))
    ]
    is_header = found[0] >= 0 and found[1] >= 0
    _require(is_header or len(header) == 2, f"its first line is {some(header)}: {_EXPECTED}")
    return (found if is_header else [0, 1, -1]), is_header


def _existing(folder, image):
    """Returns the path relative to the folder of a file there is, else None."""
    for path in (image, image.replace("\\", "/")):  # Windows writes these
        if os.path.isfile(folder / path):
            return posixpath.normpath(path)
    return None
