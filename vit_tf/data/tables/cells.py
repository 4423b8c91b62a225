"""Interprets the label cells of a table: one class per image, or several."""

import re
from collections import Counter
from functools import partial

from vit_tf.checks import quoted, require

# The values of a column for one class, and the values that mean that the class is present.
BINARY = (({"0", "1"}, {"1"}), ({"-1", "1"}, {"1"}), ({"false", "true"}, {"true"}), ({"no", "yes"}, {"yes"}))
SEPARATORS = {"|": "|", ";": ";", ",": ",", " ": "blanks"}
CERTAIN = "|;"  # class names do not contain these
QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
MISSING = ("nan", "none", "null", "na", "n/a", "<na>", "?", "unknown")  # values for a missing label
RECURRING = 0.8  # minimum share of recurring parts of cells that makes the parts labels
USES = 4  # mean number of distinct cells per part


def read_cells(cells):
    """Returns (labels, notes) of a column of labels.

    Several labels in a cell are separated by | or ;, or are in brackets, as in lists of pandas. A comma or a
    blank separates labels only if `separates_labels` is true: "golden retriever" is one class.

    Returns:
        labels: one str per cell; or, if images have several labels, one sorted tuple of str per cell.
        notes: list of lines that describe the interpretation.

    Raises:
        ValueError: some cells look like several labels, and others like names with a blank or comma.
    """
    distinct = Counter(cells)
    labels, notes = read_distinct(cells, distinct)
    absent = [cell for cell in distinct if cell.lower() in MISSING]
    if absent:
        count = sum(distinct[cell] for cell in absent)
        notes = [*notes, f"{count:,} images have the label {quoted(absent)}, which is taken as a class"]
    return labels, notes


def read_distinct(cells, distinct):
    """Returns `read_cells` without notes on missing labels; `distinct` counts the distinct cells."""
    if any(distinct) and all(cell[:1] + cell[-1:] == "[]" for cell in distinct if cell):
        return several_labels(cells, list_items, "in brackets")
    for separator, name in SEPARATORS.items():
        if any(separator in cell for cell in distinct):
            if separator in CERTAIN or separates_labels(distinct, separator):
                return several_labels(cells, partial(split, separator=separator), f"separated by {name}")
            return cells, names_note(distinct, separator)
    return cells, []


def several_labels(cells, read, how):
    """Returns (labels, notes) of cells with several labels, which `read` splits."""
    labels = [tuple(sorted(set(read(cell)))) for cell in cells]
    classes, most = {name for each in labels for name in each}, max(map(len, labels))
    note = f"several labels per image, {how}: {len(classes)} classes ({quoted(sorted(classes))}), "
    return labels, [f"{note}up to {most} per image{without_label(labels)}"]


def without_label(labels):
    count = sum(not each for each in labels)
    return f"; {count:,} images have none" if count else ""


def split(cell, separator):
    return [part.strip() for part in cell.split(separator) if part.strip()]


def list_items(cell):
    """Returns the items of "['cat', 'dog']", "['cat' 'dog']" or "[cat, dog]"."""
    quoted = [single or double for single, double in QUOTED.findall(cell)]
    return quoted or split(cell[1:-1], "," if "," in cell else " ")


def separates_labels(distinct, separator):
    """Returns whether a comma or blank separates labels, rather than being part of class names.

    The separator separates labels if all parts of the `distinct` cells are also cells of their own ("cat",
    "dog", "cat dog"); or if the parts recur in many cells at varying positions, unlike the colours and the
    species in "black cat".

    Raises:
        ValueError: some cells consist of labels of their own, and others have a part that occurs nowhere
            else.
    """
    alone = {cell for cell in distinct if cell and separator not in cell}
    combined = {cell: split(cell, separator) for cell in distinct if separator in cell}
    counts = Counter(part for parts in combined.values() for part in set(parts))
    composed = [cell for cell, parts in combined.items() if alone.issuperset(parts)]
    if len(composed) == len(combined):
        return True
    recurring = {part for part, count in counts.items() if count > 1 or part in alone}
    places = {(part, place) for parts in combined.values() for place, part in enumerate(parts)}
    num_movable = sum(count > 1 for count in Counter(part for part, _ in places).values())
    is_vocabulary = len(recurring) >= RECURRING * len(counts) and sum(counts.values()) >= USES * len(counts)
    if is_vocabulary and 2 * num_movable >= len(counts):
        return True
    unclear = [cell for cell, parts in combined.items() if not recurring.issuperset(parts)]
    require(
        not composed or not unclear,
        f"the labels {quoted(composed[:1])} and {quoted(unclear[:1])} may be names or several labels: write "
        "several labels as cat|dog, and names with _ instead of blanks and commas",
    )
    return False


def names_note(distinct, separator):
    """Returns a list with the note that cells with a separator are names; empty if no part recurs."""
    combined = [cell for cell in distinct if separator in cell]
    counts = Counter(part for cell in combined for part in set(split(cell, separator)))
    if not any(count > 1 or part in distinct for part, count in counts.items()):
        return []
    hint = "several are written as cat|dog"
    return [f"labels such as {quoted(combined[:1])} are taken as one class each; {hint}"]


def is_binary(cells):
    """Whether the cells of a column mark the presence of one class."""
    distinct = set(map(plain, cells))
    return any(distinct <= values for values, _ in BINARY)


def read_columns(names, columns):
    """Returns (labels, notes) of a table with one column per class, see `read_cells`.

    If every image has exactly one class, the labels are single labels.

    Args:
        names: the classes.
        columns: a list of cells per class, for which `is_binary` is true.

    Raises:
        ValueError: no image has a class.
    """
    values = {plain(cell) for cells in columns for cell in cells}
    yes = next((yes for allowed, yes in BINARY if values <= allowed), None)
    mixed = f"the columns {quoted(names)} mix kinds of values: {quoted(sorted(values))}"
    require(yes, f"{mixed}; expected 0 and 1")
    present = [[plain(cell) in yes for cell in cells] for cells in columns]
    labels = [tuple(sorted(name for name, has in zip(names, row) if has)) for row in zip(*present)]
    never = [name for name, has in zip(names, present) if not any(has)]
    notes = [f"no image has the class {quoted(never)}, left out"] if never else []
    used = len(names) - len(never)
    require(used, f"no image has a class: the columns {quoted(names)} hold no {'/'.join(sorted(yes))}")
    if all(len(each) == 1 for each in labels):
        note = f"a column per class, one class per image: {used} classes"
        return [label for (label,) in labels], [note, *notes]
    most = max(map(len, labels))
    note = f"a column per class: {used} classes, up to {most} per image{without_label(labels)}"
    return labels, [note, *notes]


def plain(cell):
    """Returns a cell of a binary column without the blanks, capitals and ".0" of pandas and spreadsheets."""
    return cell.strip().lower().removesuffix(".0")
