"""Paths in tables are matched with the files."""

import pytest
from support.tables import find, labels_of


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
