"""CSV files of image paths and labels: which columns hold what."""

import re
from dataclasses import dataclass
from pathlib import Path

from vit_tf.checks import quoted, require
from vit_tf.data.directory_layout import SPLIT_OF_NAME
from vit_tf.data.tables.cells import is_binary, read_cells, read_columns
from vit_tf.data.tables.paths import ImageFinder
from vit_tf.data.tables.text import as_text, is_foreign, read_table
from vit_tf.preprocessing.image_formats import ENDINGS

# Headers in lower case without blanks and punctuation, the most specific first.
PATH_NAMES = (
    *("path", "filepath", "imagepath", "imgpath", "relativepath", "file", "filename", "imagefile"),
    *("imagefilename", "imgfile", "fname", "image", "imagename", "img", "imgname", "picture", "photo"),
    *("name", "id", "imageid", "imgid", "fileid", "uuid"),
)
LABEL_NAMES = (
    *("classname", "labelname", "categoryname", "class", "classes", "label", "labels", "category"),
    *("categories", "target", "targets", "species", "breed", "variety", "tag", "tags", "diagnosis", "dx"),
    *("genre", "genres", "attributeids", "groundtruth", "classid", "labelid", "categoryid", "targetid"),
)
SPLIT_NAMES = ("split", "set", "subset", "partition")
VALIDATION_NAMES = ("isvalid", "isvalidation", "isval")  # fastai's: True and False
NO_LABELS = ("index", "width", "height")  # beside pandas' index, whose header is empty or "Unnamed: 0"
EXPECTED = (
    "expected a column such as path, filename, image or id, and one such as label, class or target, or a "
    "column of 0 and 1 per class"
)
SAMPLE_ROWS = 50


@dataclass
class Columns:
    """Indices of the columns of a table, and the names of all columns."""

    path: int
    labels: list  # one column of labels, or one column of 0 and 1 per class
    split: int | None
    header: list | None  # None if the table has no header


def read_labels(path):
    """Returns the labels of a table of images.

    The header and the cells determine the columns. A table without a header has the columns path and label.
    The cells of a column `split` are train, validation or test, in any usual spelling, or empty. Paths are
    relative to the table's folder; see `ImageFinder` for names and ids, `read_table` for encodings and
    delimiters, `read_cells` for several labels per cell, and `read_columns` for one column per class.

    Returns:
        (labelled, notes): {image path: (label, split or None)}; and lines that describe how the table was
        read. A label is the name of the class; in a multi-label table, a tuple of names.

    Raises:
        ValueError: a column, label or split is missing or unclear, an image file does not exist, or an image
            has two labels.
    """
    finder = ImageFinder(Path(path))
    rows, delimiter, notes = read_table(path, is_header)
    require(rows, f"it has no lines: {EXPECTED}")
    columns, rows = find_columns(rows, finder)
    rows = rows_of_one_width(rows, columns, delimiter)
    labels, label_notes = read_all_labels(rows, columns)
    notes += [described(columns), *foreign_note(rows, columns), *label_notes]
    labelled, missing, num_repeated = {}, [], 0
    first = {}  # {identity of a file: (its name, its label and split)}
    for (line, cells), label in zip(rows, labels):
        image = cells[columns.path]
        require(image, f"line {line} has no path: fill it in")
        require(label or isinstance(label, tuple), f"line {line} has no label: fill it in")
        entry = label, read_split_cell(cells, columns, line)
        name = finder.find(image)
        if name is None:
            missing.append(image)
            continue
        known, other = first.setdefault(finder.identity(name), (name, entry))
        also = "" if known == name else f" (as {name!r})"
        conflict = f"{known!r} is {shown_entry(other)} first and {shown_entry(entry)} in line {line}{also}"
        require(other == entry, f"{conflict}: keep one of them, or write several labels as cat|dog")
        num_repeated += known in labelled
        labelled[known] = entry
    hint = f"paths are relative to the CSV's folder; if the first line is a header, {EXPECTED}"
    require(not missing, f"{len(missing):,} of its files do not exist: {quoted(missing)}; {hint}")
    if num_repeated:
        notes.append(f"{num_repeated:,} lines name an image that an earlier line has with the same label")
    return labelled, tuple(notes)


def normalised(name):
    return re.sub(r"[\W_]", "", name.lower())


def is_index(name):
    """Whether a column has no name, as the row numbers that pandas and R write."""
    return not re.sub(r"unnamed\d*", "", normalised(name))


def is_header(cells):
    """Whether the cells include the name of a path column and the name of a label column."""
    names = {normalised(cell) for cell in cells}
    return bool(names.intersection(PATH_NAMES) and names.intersection(LABEL_NAMES))


def find_columns(rows, finder):
    """Returns (`Columns`, rows without the header); each row has a cell for every name of the header."""
    first, rest = rows[0][1], rows[1:]
    if not names_columns(first, rest, finder):
        require(len(first) == 2, f"its first line is {quoted(first)}: {EXPECTED}")
        return Columns(0, [1], None, None), rows
    if rest and all(len(cells) == len(first) + 1 for _, cells in rest):
        first = ["", *first]  # R writes no name for the column of row numbers
    header = [as_text(cell) for cell in first]
    names = [normalised(cell) for cell in header]
    sample = [cells for _, cells in rest[:SAMPLE_ROWS]]
    path = find_path(names, sample, finder)
    split = find_split(names, rest)
    require(path is not None, f"its first line is {quoted(first)}: {EXPECTED}")
    labels = find_label_columns(header, names, [cells for _, cells in rest], path, split)
    return Columns(path, labels, split, header), rest


def names_columns(first, rest, finder):
    """Whether the first line of a table is a header."""
    if is_header(first):
        return True
    if any(cell.lower().endswith(ENDINGS) or finds(finder, cell) for cell in first):
        return False
    if not {normalised(cell) for cell in first}.isdisjoint(PATH_NAMES):
        return True
    has_number = any(re.fullmatch(r"[\d.]+", cell) for cell in first)
    sample = [cell for _, cells in rest[:SAMPLE_ROWS] for cell in cells]
    return not has_number and any(finds(finder, cell) for cell in sample)


def find_path(names, sample, finder):
    """Returns the column whose cells are image files; columns with a known name are tried first."""
    known = [names.index(name) for name in PATH_NAMES if name in names]
    for column in dict.fromkeys([*known, *range(len(names))]):
        cells = [cells[column] for cells in sample if len(cells) > column]
        if sum(finds(finder, cell) for cell in cells) * 2 > len(cells):
            return column
    return known[0] if known else None


def finds(finder, cell):
    try:
        return bool(cell) and finder.find(cell) is not None
    except ValueError:  # several files match
        return True


def find_split(names, rows):
    """Returns the column of the split, or None. Ambiguous names count only if all cells are splits."""
    for name in (*SPLIT_NAMES, *VALIDATION_NAMES):
        if name not in names:
            continue
        column = names.index(name)
        cells = {cells[column].lower() for _, cells in rows if len(cells) > column}
        if name not in SPLIT_NAMES[1:] or cells <= {*SPLIT_OF_NAME, ""}:
            return column
    return None


def find_label_columns(header, names, rows, path, split):
    """Returns the columns of the labels: one, or one per class."""

    def cells(column):
        return [row[column] for row in rows if len(row) > column]

    known = [names.index(name) for name in LABEL_NAMES if name in names and names.index(name) != path]
    if known:  # a column of names is preferred to a column of numbers
        return [next((c for c in known if not all(map(str.isdecimal, cells(c)))), known[0])]
    others = [
        column
        for column, name in enumerate(names)
        if column not in (path, split) and name not in NO_LABELS and not is_index(name) and any(cells(column))
    ]
    others = [column for column in others if names[column] not in PATH_NAMES] or others
    if len(others) > 1 and all(is_binary(cells(column)) for column in others):
        return others
    require(others, f"its first line is {quoted(header)}: {EXPECTED}")
    which = f"which column is the label, {quoted(header[column] for column in others)}?"
    hint = "call it 'label', or leave nothing but 0 and 1 in a column per class"
    require(len(others) == 1, f"{which} {hint}; {EXPECTED}")
    return others


def rows_of_one_width(rows, columns, delimiter):
    """Returns the rows with one cell per column; joins a label that an unquoted delimiter split."""
    used = [columns.path, *columns.labels, *([] if columns.split is None else [columns.split])]
    width = len(columns.header) if columns.header else 2
    complete = []
    for line, cells in rows:
        require(len(cells) > max(used), f"line {line} has {len(cells)} columns, fewer than the header")
        while len(cells) > width and not cells[-1]:
            cells = cells[:-1]
        if len(cells) > width:
            hint = f"put quotes around cells with {delimiter!r}"
            require(columns.labels == [width - 1], f"line {line} has {len(cells)} columns of {width}: {hint}")
            cells = [*cells[: width - 1], delimiter.join(cells[width - 1 :])]
        complete.append((line, cells))
    return complete


def read_all_labels(rows, columns):
    """Returns (labels, notes) of all rows, see `read_cells` and `read_columns`."""
    if not rows:
        return [], []
    if len(columns.labels) == 1:
        return read_cells([as_text(cells[columns.labels[0]]) for _, cells in rows])
    names = [columns.header[column] for column in columns.labels]
    return read_columns(names, [[cells[column] for _, cells in rows] for column in columns.labels])


def read_split_cell(cells, columns, line):
    """Returns the split in a row: "train", "validation", "test" or None."""
    if columns.split is None:
        return None
    cell = cells[columns.split].lower()
    if normalised(columns.header[columns.split]) in VALIDATION_NAMES:
        known = {"true": "validation", "1": "validation", "false": "train", "0": "train", "": None}
        name = columns.header[columns.split]
        require(cell in known, f"line {line} has {cell!r} as {name!r}: expected True or False")
        return known[cell]
    is_split = not cell or cell in SPLIT_OF_NAME
    require(is_split, f"line {line} has the split {cell!r}: expected train, validation, test or nothing")
    return SPLIT_OF_NAME.get(cell)


def shown_entry(entry):
    label, split = entry
    labels = [label] if isinstance(label, str) else label
    text = ", ".join(map(repr, labels)) or "without a label"
    return f"{text} in {split!r}" if split else text


def described(columns):
    """Returns the note on which columns are used, and which are not."""
    if columns.header is None:
        return "the table has no header: its first column is taken as the path, the second as the label"
    used = {columns.path, columns.split, *columns.labels}
    unused = [name for column, name in enumerate(columns.header) if column not in used and not is_index(name)]
    path, labels = columns.header[columns.path], [columns.header[column] for column in columns.labels]
    what = "label" if len(labels) == 1 else "classes"
    split = "" if columns.split is None else f", {columns.header[columns.split]!r} the split"
    rest = f"; not used: {quoted(unused)}" if unused else ""
    return f"of the table's columns {path!r} is the path, {quoted(labels)} the {what}{split}{rest}"


def foreign_note(rows, columns):
    """Returns a list with a note if labels are not in UTF-8, else an empty list."""
    cells = (cells[column] for _, cells in rows for column in columns.labels)
    foreign = [as_text(cell) for cell in cells if is_foreign(cell)]
    if not foreign:
        return []
    return [f"{len(foreign):,} labels are not UTF-8 and read as Windows-1252, such as {quoted(foreign[:1])}"]
