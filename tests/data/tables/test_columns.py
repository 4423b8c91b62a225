"""Columns of tables: paths, labels, splits, and one column per class."""

import os
import re

import pytest
from support.image_folders import (
    JPEG,
    LAYOUTS,
    read_all,
    table,
    write,
)
from support.tables import SEVERAL, SINGLE, find, labels_of, written

from vit_tf.data import find_images


def write_csv(folder, text, encoding="utf-8"):
    write(folder, LAYOUTS["folders"])
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding, "surrogateescape"))
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label\ncat/1.jpg,b\ndog/3.png,a\n", "utf-8"),
        ("\r\nImage , Target\r\n./cat/1.jpg, b\r\n\r\ndog\\3.png,a", "utf-8-sig"),
        ("cat/1.jpg;b\ndog/3.png;a\ncat/1.jpg;b\n", "utf-8"),
        ("id\tclass_name\tlabel\tfilename\n7\tb\t0\tcat/1.jpg\n8\ta\t1\tdog/../dog/3.png\n", "utf-8"),
        ('file,class\n"cat/1.jpg","b"\n"dog/3.png",a\n', "utf-8-sig"),
    ],
)
def test_finds_images_of_a_csv(tmp_path, text, encoding):
    files = find_images(write_csv(tmp_path, text, encoding))
    assert table(files) == {"cat/1.jpg": ("b", None), "dog/3.png": ("a", None)}
    assert files.class_names == ("a", "b") and files.read(0) == JPEG


def test_a_csv_may_hold_splits_and_odd_names(tmp_path):
    odd = os.fsdecode(b"caf\xe9, \xff.jpg")
    write(tmp_path / "elsewhere", [odd])
    rows = f'split,path,label\nVal,cat/1.jpg,кот\n,dog/3.png,狗\ntraining,"../elsewhere/{odd}",狗\n'
    files = find_images(write_csv(tmp_path / "set", rows))
    expected = {"cat/1.jpg": ("кот", "validation"), "dog/3.png": ("狗", None)}
    assert table(files) == {f"../elsewhere/{odd}": ("狗", "train"), **expected}
    assert read_all(files) == [JPEG] * 3


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "it has no lines: expected a column such as path"),
        ("path,label\n", "no images: expected images of at least two classes"),
        ("path,label\ncat/1.jpg,a\n", "only the class 'a': expected images of at least two"),
        ("path\ncat/1.jpg\n", "its first line is 'path': expected a column such as path"),
        ("a,b,c\ncat/1.jpg,a,0\n", "which column is the label, 'b', 'c'. call it 'label'"),
        ("path,label\ncat/7.jpg,a\ndog/8.jpg,b\n", "2 of its files do not exist: 'cat/7.jpg', 'dog/8.jpg'"),
        ("path,label\ncat/1.jpg\n", "line 2 has 1 columns, fewer than the header"),
        ("path,label\ncat/1.jpg,\n", "line 2 has no label"),
        ("path,label\n,a\n", "line 2 has no path"),
        (
            "path,label\ncat/1.jpg,a\ndog/3.png,a\n./cat/1.jpg,b\n",
            "is 'a' first and 'b' in line 4",
        ),
        (
            "path,label,split\ncat/1.jpg,a,\ncat/1.jpg,a,val\n",
            "and 'a' in 'validation' in line 3",
        ),
        ("path,label,split\ncat/1.jpg,a,later\n", "line 2 has the split 'later': expected train"),
        ('path,label\n"cat/1.jpg,a\n', r"line \d is not CSV .*: correct its quotes"),
        ("path,label\ncat/1.jpg,\0\n", "not a table of text"),
        ("path,label\ncat/" + "1" * 300 + ".jpg,a\n", "1 of its files do not exist"),
        ("path,label\n" + "1" * 200_000 + ".jpg,a\n", "is not CSV"),
    ],
)
def test_refuses_csv(tmp_path, text, match):
    path = write_csv(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(repr(str(path)))}: .*{match}") as error:
        find_images(path)
    assert "\n" not in str(error.value)


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
            "'perhaps' as 'is_valid': expected True or False",
        ),
        ("gone.jpg,cat\ncat/1.jpg,cat\ndog/3.png,dog\n", "1 of its files do not exist: 'gone.jpg'"),
        ("12,cat\ncat/1.jpg,cat\ndog/3.png,dog\n", "1 of its files do not exist: '12'"),
    ],
)
def test_unclear_columns_are_refused(tmp_path, table, match):
    with pytest.raises(ValueError, match=match):
        find(tmp_path, table)


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
