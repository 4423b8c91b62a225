"""Several labels per image are read from the cells of a table."""

import random

import numpy as np
import pytest
from support.tables import SEVERAL, find, labels_of


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
