"""Reads tables of spreadsheets, pandas and people: encodings, delimiters, quotes."""

import codecs
import csv
import io
import re
import zipfile

from vit_tf.checks import brief, require
from vit_tf.files import open_regular, read_regular

TABLE_ENDINGS = (".csv", ".tsv", ".txt")
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
DELIMITERS = "\t,;| "  # a blank comes last, since labels and paths contain blanks
WESTERN = "‘’‚“”„–—…·°²³ºª«»´&€£\xa0"  # allowed in names besides letters
MAX_BYTES = 512 << 20  # some five million lines
QUOTES = ("''", '""', "“”", "„“", "‘’", "«»")
SAMPLE_CHARACTERS = 1 << 16  # from which the delimiter is found
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",  # Excel's "Unicode text"
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def read_rows(path):
    """Yields (line number, cells) of a table that `vit_tf.files.write_csv` wrote, without empty lines.

    Bytes that are not UTF-8 are decoded as by `os.fsdecode`, since paths may contain such bytes. The file is
    read line by line: a million rows at once would take a gigabyte.

    Raises:
        ValueError: the file is not a CSV. The message does not name the file.
    """
    with open_regular(path, MAX_BYTES) as file:
        lines = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        yield from parse_lines(lines, ",")


def read_table(path, is_header):
    """Returns a table of unknown origin as (rows, delimiter, notes).

    The encoding is UTF-8 or UTF-16 with a byte order mark, or UTF-8 without a mark. Bytes that are not UTF-8
    are decoded as by `os.fsdecode`, see `as_text`. Cells are separated by a comma, semicolon, tab, | or
    blank, and may be quoted, with blanks before the quotes. Single and typographic quotes are removed if all
    cells of a column have them. A first line `sep=;`, which Excel writes, sets the delimiter.

    Args:
        path: the file.
        is_header: function from a line's cells to whether they are a valid header. The delimiter that gives a
            valid header is chosen; else one that gives all lines the same number of cells.

    Returns:
        rows: [(line number, cells)], without blanks around cells and without empty lines.
        delimiter: str.
        notes: list of lines on encodings other than UTF-8.

    Raises:
        ValueError: the file is not a table. The message does not name the file.
    """
    text, notes = decode(read_regular(path, MAX_BYTES))
    named = re.match(r"sep=(.)\r?\n", text)
    if named:
        delimiter, text = named[1], text[named.end() :]
    else:
        delimiter = find_delimiter(text[:SAMPLE_CHARACTERS], is_header)
    rows = [(line + bool(named), stripped(cells)) for line, cells in parse(text, delimiter, True)]
    remove_quotes([cells for _, cells in rows])
    return rows, delimiter, notes


def require_no_spreadsheet(path):
    """Raises a ValueError for a spreadsheet file, by its ending or because it is a zip."""
    ending = path.suffix.lower()
    is_spreadsheet = ending in SPREADSHEETS or (ending in TABLE_ENDINGS and zipfile.is_zipfile(path))
    require(not is_spreadsheet, "a spreadsheet file: export it as 'CSV UTF-8', and give the CSV")


def decode(data):
    """Returns the text of a file's bytes, and a list of notes on its encoding."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            errors = "surrogateescape" if encoding == "utf-8" else "strict"
            try:
                text = data[len(mark) :].decode(encoding, errors)
            except UnicodeDecodeError:
                raise ValueError(f"damaged {encoding.upper()}: save the table as UTF-8") from None
            return text, [] if encoding == "utf-8" else ["the table is in UTF-16"]
    return data.decode("utf-8", "surrogateescape"), []


def as_text(cell):
    """Returns a cell as text. Bytes that are not UTF-8 are decoded as Windows-1252, which includes Latin-1.

    Raises:
        ValueError: the bytes are probably neither: text in other scripts looks like symbols, or like many
            adjacent accents.
    """
    if not is_foreign(cell):
        return cell
    text = cell.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    is_western = all(c.isascii() or c.isalpha() or c in WESTERN for c in text)
    if not is_western or re.search(r"[^\W\d_a-zA-Z]{4}", text):
        raise ValueError(f"{cell[:80]!r} is neither UTF-8 nor Windows-1252: save the table as UTF-8")
    return text


def is_foreign(cell):
    """Whether a cell holds bytes that are not UTF-8, as surrogates."""
    return any("\udc80" <= character <= "\udcff" for character in cell)


def find_delimiter(text, is_header):
    """Returns the delimiter that fits the beginning of a table, see `read_table`."""

    def score(delimiter):
        try:
            rows = [cells for _, cells in parse(text, delimiter, True, strict=False)]
        except ValueError:  # raised again when the whole table is read
            return False, 0
        width = len(rows[0]) if rows else 0
        share = sum(len(cells) == width for cells in rows) / len(rows) if width > 1 else 0
        return share > 0 and is_header(stripped(rows[0])), share

    return max(DELIMITERS, key=score)


def parse(text, delimiter, skips_blanks=False, strict=True):
    """Returns [(line number, cells)] of text without empty lines; raises a ValueError if it is not CSV."""
    lines = io.StringIO(text, newline="")  # a quoted cell may hold a line break
    return list(parse_lines(lines, delimiter, skips_blanks, strict))


def parse_lines(lines, delimiter, skips_blanks=False, strict=True):
    """Yields (line number, cells) of an iterable of lines; see `parse`."""
    skips_blanks = skips_blanks and delimiter != " "  # Python 3.13 refuses the two together
    lines = map(require_text, lines)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=skips_blanks, strict=strict)
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} is not CSV ({brief(error)}): correct its quotes") from None


def require_text(line):
    """Returns a line; a ValueError if it has a byte that text does not have."""
    require("\0" not in line, "not a table of text: save it as 'CSV UTF-8' in a spreadsheet")
    return line


def remove_quotes(rows):
    """Removes quotes that are not standard in CSV, such as 'cat', from columns where every cell has them."""
    for column in range(max(map(len, rows), default=0)):
        cells = [cells[column] for cells in rows[1:] if len(cells) > column and cells[column]]
        if cells and any(all(is_quoted(cell, pair) for cell in cells) for pair in QUOTES):
            for row in rows:
                if len(row) > column and any(is_quoted(row[column], pair) for pair in QUOTES):
                    row[column] = row[column][1:-1].strip()


def is_quoted(cell, pair):
    return len(cell) > 1 and cell[0] + cell[-1] == pair and pair[0] not in cell[1:-1]


def stripped(cells):
    return [cell.strip() for cell in cells]
