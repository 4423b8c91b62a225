"""Tables of images as spreadsheets, pandas and Kaggle write them."""

import io
import os
import random
import zipfile

import numpy as np
import pytest
from PIL import Image

from vit_tf.data import find_images

SINGLE = [("cat/1.jpg", "cat"), ("cat/2.jpg", "cat"), ("dog/3.png", "dog")]
SEVERAL = {"1": "cat", "2": "dog", "3": "cat dog", "4": "bird", "5": "dog bird"}


def picture(format):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), "uint8")).save(file, format)
    return file.getvalue()


JPEG = picture("JPEG")


def find(folder, table, files=tuple(name for name, _ in SINGLE), name="labels.csv"):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(JPEG)
    (folder / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return find_images(folder / name)


def labels_of(files):
    """Returns {name: class, or tuple of classes}."""
    if not files.is_multi_label:
        return {name: files.class_names[label] for name, label in zip(files.names, files.labels)}
    names = np.array(files.class_names, object)
    return {name: tuple(names[row]) for name, row in zip(files.names, files.labels)}


# ---------------------------------------------------------------------------------------------------
# Dialects and encodings
# ---------------------------------------------------------------------------------------------------
def written(delimiter=",", quote="", header=("path", "label"), blank="", end="\n"):
    rows = [header, *SINGLE] if header else SINGLE
    lines = ((f"{delimiter}{blank}").join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    return "".join(line + end for line in lines)


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
    with pytest.raises(ValueError, match="spreadsheet's own format: save it there as 'CSV UTF-8'"):
        find(tmp_path, file.getvalue(), name=name)


def test_a_folder_that_holds_a_table_says_so(tmp_path):
    find(tmp_path, "id,breed\n1,terrier\n2,beagle\n", ["train/1.jpg", "train/2.jpg"])
    with pytest.raises(ValueError, match="no training images .*; or give 'labels.csv' instead of the folder"):
        find_images(tmp_path)


# ---------------------------------------------------------------------------------------------------
# Columns
# ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "path",
    [
        "path",
        "file",
        "filename",
        "file_name",
        "File Name",
        "filepath",
        "file_path",
        "image",
        "image_path",
        "img",
    ]
    + ["image_id", "id", "Id", "ImageId", "name", "img_name", "whatever"],
)
@pytest.mark.parametrize(
    "label", ["label", "labels", "class", "category", "target", "species", "breed", "kind of"]
)
def test_headers(tmp_path, path, label):
    files = find(tmp_path, written(header=(path, label)))
    assert labels_of(files) == dict(SINGLE)
    assert f"{path!r} is the path, {label!r} the label" in " ".join(files.notes)


@pytest.mark.parametrize(
    "table",
    [
        ",path,label\n0,cat/1.jpg,cat\n1,cat/2.jpg,cat\n2,dog/3.png,dog\n",  # pandas' index
        "Unnamed: 0,kind,picture\n0,cat,cat/1.jpg\n1,cat,cat/2.jpg\n2,dog,dog/3.png\n",
        "index,filename,width,height,class\n0,cat/1.jpg,9,9,cat\n1,cat/2.jpg,9,9,cat\n2,dog/3.png,9,9,dog\n",
        "path,label\n1,cat/1.jpg,cat\n2,cat/2.jpg,cat\n3,dog/3.png,dog\n",  # R's row numbers
        "path,label,\ncat/1.jpg,cat,\ncat/2.jpg,cat,\ndog/3.png,dog,\n",  # an empty column
        "id,file_name,target,species\n7,cat/1.jpg,0,cat\n8,cat/2.jpg,0,cat\n9,dog/3.png,1,dog\n",
        "name,file\ncat,cat/1.jpg\ncat,cat/2.jpg\ndog,dog/3.png\n",
        "fname,labels,is_valid\ncat/1.jpg,cat,True\ncat/2.jpg,cat,False\ndog/3.png,dog,False\n",  # fastai
        "set,file,label\nA,cat/1.jpg,cat\nB,cat/2.jpg,cat\nA,dog/3.png,dog\n",
    ],
)
def test_columns_beside_them(tmp_path, table):
    files = find(tmp_path, table)
    assert labels_of(files) == dict(SINGLE)
    assert ("not used" in files.notes[0]) == any(name in table for name in ("width", "id,", "set,"))
    expected = ("validation", "train", "train") if "is_valid" in table else (None,) * 3
    assert files.splits == expected


@pytest.mark.parametrize(
    "table, match",
    [
        ("path,age,sex\ncat/1.jpg,3,m\ndog/3.png,4,f\n", "which column is the label, 'age', 'sex'"),
        ("path,cat,dog\ncat/1.jpg,1,0\ndog/3.png,,1\n", "which column is the label, 'cat', 'dog'"),
        ("path,cat,dog\ncat/1.jpg,0,0\ndog/3.png,0,0\n", "no image has a class: .* hold no 1"),
        ("path,cat,dog\ncat/1.jpg,0,yes\ndog/3.png,1,no\n", "mix kinds of values: '0', '1', 'no', 'yes'"),
        (
            "path,label,split\ncat/1.jpg,a,b,train\ndog/3.png,b,train\n",
            "line 2 has 4 columns of 3: put quotes",
        ),
        (
            "file,label,is_valid\ncat/1.jpg,a,perhaps\ndog/3.png,b,0\n",
            "'perhaps' as 'is_valid': True or False",
        ),
        ("gone.jpg,cat\ncat/1.jpg,cat\ndog/3.png,dog\n", "1 of its files do not exist: 'gone.jpg'"),
        ("12,cat\ncat/1.jpg,cat\ndog/3.png,dog\n", "1 of its files do not exist: '12'"),
    ],
)
def test_unclear_columns_are_refused(tmp_path, table, match):
    with pytest.raises(ValueError, match=match):
        find(tmp_path, table)


# ---------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "files, name",
    [
        (["1.jpg", "2.png"], "labels.csv"),  # beside it
        (["images/1.JPG", "images/2.jpeg"], "labels.csv"),
        (["train/1.jpg", "train/2.jpg", "test/1.jpg", "test/2.jpg"], "train.csv"),
        (["train/1.jpg", "train/2.jpg", "test/1.jpg", "test/2.jpg"], "train_labels.csv"),
        (["train-jpg/1.jpg", "train-jpg/2.jpg", "test-jpg/1.jpg"], "train.csv"),
        (["data/images/1.jpg", "data/images/2.webp"], "labels.csv"),
    ],
)
def test_ids_without_ending(tmp_path, files, name):
    found = find(tmp_path, "id,breed\n1,terrier\n2,beagle\n", files, name)
    assert labels_of(found) == dict(zip(files[:2], ["terrier", "beagle"]))


@pytest.mark.parametrize("path", ["{}.jpg", "images/{}.jpg", "images/{}", "./images\\{}.jpg", "{}"])
def test_names_of_files_in_a_subfolder(tmp_path, path):
    table = f"image,label\n{path.format('a')},x\n{path.format('b')},y\n"
    files = (
        ["images/a.jpg", "images/b.jpg"] if "images" not in path else ["set/images/a.jpg", "set/images/b.jpg"]
    )
    assert labels_of(find(tmp_path, table, files)) == dict(zip(files, "xy"))


def test_a_name_that_fits_several_files_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'1' may be 'a/1.jpg', 'b/1.jpg': write folder and ending"):
        find(tmp_path, "id,label\n1,x\n2,y\n", ["a/1.jpg", "b/1.jpg", "a/2.jpg"])


SPELLINGS = [
    "./cat/1.jpg",
    "cat//1.jpg",
    "cat\\1.jpg",
    "dog/../cat/1.jpg",
    "{folder}/cat/1.jpg",
    "link.jpg",
    "1",
]
SPELLINGS += ["linked/1.jpg", "1.jpg"]


@pytest.mark.parametrize("again", SPELLINGS)
def test_a_file_under_two_names_is_noticed(tmp_path, again):
    (tmp_path / "link.jpg").symlink_to("cat/1.jpg")
    (tmp_path / "linked").symlink_to("cat")
    again = again.format(folder=tmp_path)
    names = ["cat/1.jpg", "dog/3.png"]
    if again in ("1", "1.jpg"):
        (tmp_path / "linked").unlink()
    with pytest.raises(
        ValueError, match=r"'cat/1.jpg' is 'a' first and 'b' in line 4( \(as .*\))?: keep one"
    ):
        find(tmp_path, f"path,label\ncat/1.jpg,a\ndog/3.png,b\n{again},b\n", names)
    files = find(tmp_path, f"path,label\ncat/1.jpg,a\ndog/3.png,b\n{again},a\n", names)
    assert labels_of(files) == {"cat/1.jpg": "a", "dog/3.png": "b"}
    assert "1 lines name an image that an earlier line has" in files.notes[-1]


# ---------------------------------------------------------------------------------------------------
# Several labels
# ---------------------------------------------------------------------------------------------------
def several(folder, write, rows=None, header="id,tags"):
    """Finds images of a table whose label cells `write` makes of a list of labels."""
    rows = rows or {name: cell.split() for name, cell in SEVERAL.items()}
    lines = (f"{name},{write(labels)}" for name, labels in rows.items())
    return find(folder, "\n".join([header, *lines]) + "\n", [f"{name}.jpg" for name in rows])


@pytest.mark.parametrize(
    "write",
    [
        "|".join,
        ";".join,
        " | ".join,
        " ".join,
        lambda labels: f'"{",".join(labels)}"',
        lambda labels: f'"{", ".join(labels)}"',
        ",".join,  # a list that no quotes hold together
        ", ".join,
        lambda labels: f'"{labels}"',
        lambda labels: f'"{np.array(labels)}"',
        lambda labels: f"[{' '.join(labels)}]",
        lambda labels: '"[' + ", ".join(f'""{label}""' for label in labels) + ']"',  # JSON
    ],
)
def test_several_labels_in_a_cell(tmp_path, write):
    files = several(tmp_path, write)
    assert files.class_names == ("bird", "cat", "dog") and files.labels.dtype == bool
    assert labels_of(files) == {f"{name}.jpg": tuple(sorted(cell.split())) for name, cell in SEVERAL.items()}
    assert "several labels per image, " in files.notes[-1] and "3 classes" in files.notes[-1]


@pytest.mark.parametrize("separator", ["|", " ", ", "])
def test_images_without_a_label(tmp_path, separator):
    rows = {name: cell.split() for name, cell in SEVERAL.items()} | {"6": []}
    files = several(tmp_path, lambda labels: f'"{separator.join(labels)}"', rows)
    assert labels_of(files)["6.jpg"] == () and "1 images have none" in files.notes[-1]


def test_tags_that_never_stand_alone(tmp_path):
    """Kaggle's Planet: weather and land use, at least two of them per image, in alphabetical order."""
    chance = random.Random(0)
    tags = ["agriculture", "bare", "clear", "cloudy", "haze", "primary", "road", "water"]
    rows = {str(i): sorted(chance.sample(tags, chance.randint(2, 5))) for i in range(200)}
    files = several(tmp_path, " ".join, rows)
    assert files.is_multi_label and files.class_names == tuple(tags)


def test_attributes_of_classes(tmp_path):
    """Fewer combinations than attributes, as of Animals with Attributes: 50 kinds of 85 attributes."""
    chance = random.Random(0)
    attributes = [f"attribute_{i:02}" for i in range(30)]
    kinds = [sorted(chance.sample(attributes, 10)) for _ in range(20)]
    files = several(tmp_path, " ".join, {str(i): kinds[i % 20] for i in range(60)})
    assert files.is_multi_label and files.class_names == tuple(attributes)


@pytest.mark.parametrize(
    "names",
    [
        ["golden retriever", "labrador retriever", "beagle", "border collie"],
        ["tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark, white shark"],
        ["Quercus robur", "Quercus alba", "Betula alba", "Betula nana"],
        [
            f"{colour} {kind}"
            for colour in ("black", "brown", "red", "white", "grey")
            for kind in ("cat", "dog", "ox", "hen")
        ],
        ["class 1", "class 2", "class 3", "class 12"],
        ["hot dog", "dog", "cat"],
        ["ice cream", "apple pie", "apple", "cream puff"],
    ],
)
def test_names_of_several_words_stay_whole(tmp_path, names):
    files = several(tmp_path, lambda name: f'"{name}"', {str(i): name for i, name in enumerate(names)})
    assert not files.is_multi_label and set(files.class_names) == set(names)


def test_names_that_look_like_lists_are_said(tmp_path):
    files = several(tmp_path, str, {"1": "hot dog", "2": "dog", "3": "cat"})
    assert "'hot dog' are taken as one class each; several are written as cat|dog" in files.notes[-1]
    files = several(tmp_path, str, {"1": "hot potato", "2": "dog", "3": "cat"})
    assert not any("one class each" in note for note in files.notes)


@pytest.mark.parametrize("label", ["nan", "None", "NULL", "N/A"])
def test_labels_that_mean_none_are_said(tmp_path, label):
    files = several(tmp_path, str, {"1": "dog", "2": label, "3": label})
    assert label in files.class_names
    assert files.notes[-1] == f"2 images have the label {label!r}, which is taken as a class"


def test_both_at_once_is_unclear(tmp_path):
    rows = {"1": "cat", "2": "dog", "3": "cat dog", "4": "golden retriever"}
    with pytest.raises(ValueError, match="'cat dog' and 'golden retriever' may be names or several labels"):
        several(tmp_path, str, rows)
    assert several(tmp_path, str, {**rows, "3": "cat|dog"}).class_names == ("cat", "dog", "golden retriever")


@pytest.mark.parametrize(
    "no, yes", [("0", "1"), ("0.0", "1.0"), ("False", "True"), ("-1", "1"), ("no", "Yes")]
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_column_per_class(tmp_path, no, yes, quote):
    header = ", ".join(["filename", "cat", "dog", "bird", "unicorn"])
    lines = [header]
    for name, cell in SEVERAL.items():
        cells = [f"{name}.jpg", *(yes if each in cell.split() else no for each in ("cat", "dog", "bird")), no]
        lines.append(", ".join(f"{quote}{each}{quote}" for each in cells))
    files = find(tmp_path, "\n".join(lines) + "\n", [f"{name}.jpg" for name in SEVERAL])
    assert files.is_multi_label and files.class_names == ("bird", "cat", "dog")
    assert labels_of(files) == {f"{name}.jpg": tuple(sorted(cell.split())) for name, cell in SEVERAL.items()}
    assert "a column per class: 3 classes, up to 2 per image" in files.notes[-2]
    assert files.notes[-1] == "no image has the class 'unicorn', left out"


def test_a_column_per_class_with_one_class_each_is_single_label(tmp_path):
    files = find(tmp_path, "id,healthy,rust\n1,1,0\n2,0,1\n3,1,0\n", ["1.jpg", "2.jpg", "3.jpg"])
    assert not files.is_multi_label
    assert list(labels_of(files).values()) == ["healthy", "rust", "healthy"]
    assert files.notes[-1] == "a column per class, one class per image: 2 classes"
