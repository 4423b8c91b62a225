"""Tables of every dialect and encoding are read as text."""

import io
import os
import zipfile

import pytest
from support.tables import SINGLE, find, labels_of, written

from vit_tf.data import find_images


@pytest.mark.parametrize("header", [("path", "label"), ()])
@pytest.mark.parametrize("delimiter", list(",;\t|"))
@pytest.mark.parametrize(
    "how", [{}, {"quote": '"'}, {"blank": " "}, {"quote": '"', "blank": " "}, {"end": "\r\n"}, {"end": "\r"}]
)
def test_dialects(tmp_path, header, delimiter, how):
    assert labels_of(find(tmp_path, written(delimiter, header=header, **how))) == dict(SINGLE)


@pytest.mark.parametrize("quotes", ["''", "“”", "„“", "«»"])
def test_quotes_that_csv_does_not_know(tmp_path, quotes):
    left, right = quotes
    rows = [("path", "label"), *((name, f"{left}{label}{right}") for name, label in SINGLE)]
    assert labels_of(find(tmp_path, "".join(f"{a}, {b}\n" for a, b in rows))) == dict(SINGLE)
    rows = [[f"{left}{cell}{right}" for cell in row] for row in (("path", "label"), *SINGLE)]
    assert labels_of(find(tmp_path, "".join(f"{a},{b}\n" for a, b in rows))) == dict(SINGLE)
    files = find(tmp_path, "path,label\ncat/1.jpg,'quoted'\ndog/3.png,plain\n")
    assert files.class_names == ("'quoted'", "plain")


def test_words_parted_by_blanks(tmp_path):
    assert labels_of(find(tmp_path, written(" ", header=()), name="val.txt")) == dict(SINGLE)


@pytest.mark.parametrize("delimiter", list(";,"))
def test_excel_names_its_delimiter(tmp_path, delimiter):
    table = f"sep={delimiter}\r\n{written(delimiter, end=chr(13) + chr(10))}"
    assert labels_of(find(tmp_path, table)) == dict(SINGLE)
    with pytest.raises(ValueError, match="line 3 has no label"):
        find(tmp_path, f"sep={delimiter}\npath{delimiter}label\ncat/1.jpg{delimiter}\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-sig", "cp1252"])
@pytest.mark.parametrize("place", ["label", "path", "both"])
def test_encodings(tmp_path, encoding, place):
    label = "chien d’été" if place != "path" else "summer"
    path = "Käfer/ß.jpg" if place != "label" else "beetle/s.jpg"
    text = f"path\tlabel\n{path}\t{label}\ncat/1.jpg\tcat\n"
    mark = b"\xfe\xff" if encoding == "utf-16-be-sig" else b""
    files = find(
        tmp_path, mark + text.encode(encoding.removesuffix("-sig") if mark else encoding), (path, "cat/1.jpg")
    )
    assert set(labels_of(files).values()) == {label, "cat"}
    found = [name for name in files.names if name != "cat/1.jpg"]
    assert [os.path.samefile(tmp_path / name, tmp_path / path) for name in found] == [True]
    is_said = {"utf-16": "UTF-16", "cp1252": "Windows-1252"}
    expected = "UTF-16" if mark else is_said.get(encoding, "")
    if place == "path" and expected == "Windows-1252":
        return  # the path is found whichever way it is written
    assert expected in " ".join(files.notes)
    assert not any("UTF" in note for note in files.notes) or expected


def test_paths_may_be_composed_or_not(tmp_path):
    files = find(
        tmp_path, "path,label\nCafe\u0301.jpg,a\nKa\u0308fer.jpg,b\n", ["Caf\u00e9.jpg", "Ka\u0308fer.jpg"]
    )
    assert list(labels_of(files).values()) == ["a", "b"]


@pytest.mark.parametrize(
    "data, match",
    [
        (
            "path,label\na.jpg,犬\n".encode("shift-jis"),
            "neither UTF-8 nor Windows-1252: save the table as UTF-8",
        ),
        ("path,label\na.jpg,собака\n".encode("cp1251"), "neither UTF-8 nor Windows-1252"),
        ("path,label\na.jpg,小狗\n".encode("gbk"), "neither UTF-8 nor Windows-1252"),
        ("path,label\na.jpg,고양이\n".encode("euc-kr"), "neither UTF-8 nor Windows-1252"),
        ("path,label\n".encode("utf-16") + b"a", "damaged UTF-16"),
        ("path,label\na.jpg,b\n".encode("utf-16-le"), "not a table of text"),
    ],
)
def test_unknown_encodings_are_refused(tmp_path, data, match):
    with pytest.raises(ValueError, match=match):
        find(tmp_path, data, ["a.jpg"])


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv", "a.ods", "a.xls"])
def test_spreadsheets_are_to_be_saved_as_text(tmp_path, name):
    file = io.BytesIO(b"\xd0\xcf\x11\xe0")
    if name != "a.xls":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("xl/workbook.xml", "<x/>")
    with pytest.raises(ValueError, match="spreadsheet file: export it as 'CSV UTF-8'"):
        find(tmp_path, file.getvalue(), name=name)


def test_a_folder_that_holds_a_table_says_so(tmp_path):
    find(tmp_path, "id,breed\n1,terrier\n2,beagle\n", ["train/1.jpg", "train/2.jpg"])
    with pytest.raises(ValueError, match="no training images .*; or pass 'labels.csv' instead of the folder"):
        find_images(tmp_path)
