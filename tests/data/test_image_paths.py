"""The images that the arguments of a command name."""

import pytest
from PIL import Image

from vit_tf.data.image_paths import find_image_paths


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("a10.png", "a9.png", "b[1].png", "cats/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2)).save(path)
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "paths", "problem"),
    [
        (["a*.png"], ["a9.png", "a10.png"], None),
        (["b[1].png"], ["b[1].png"], None),
        (["**/*"], ["a9.png", "a10.png", "b[1].png", "cats/c.png"], None),
        (["cats", "a9.png"], ["cats/c.png", "a9.png"], None),
        (["*"], ["a9.png", "a10.png", "b[1].png", "cats/c.png"], "no image in the folder 'new'"),
        (["x*", "a9.png"], ["a9.png"], "no image at 'x*': no file matches this pattern"),
        (["x.png", "a9.png"], ["a9.png"], "no image at 'x.png': there is no such file"),
        (["n**"], [], "no image at 'n**': no file matches this pattern"),
    ],
)
def test_paths_and_problems(folder, arguments, paths, problem):
    found, problems, notes = find_image_paths(arguments)
    assert (found, problems, notes) == (paths, [problem] if problem else [], [])
