"""README's Python runs as it stands."""

import re
from pathlib import Path

import pytest
from PIL import Image
from support.paths import ROOT

from vit_tf import data

README = ROOT / "README.md"


def blocks(section):
    """Returns the Python blocks of a section."""
    text = README.read_text("utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


pytestmark = pytest.mark.tensorflow_only("README speaks of the default")


def test_ten_lines(capsys):
    (code,) = blocks("Ten lines")
    assert len(code.splitlines()) <= 11
    names = {}
    exec(code, names)
    assert names["attention"].shape == (8, 12, 61, 61) and "vit_base_patch16_224" in capsys.readouterr().out


def test_seeing_inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample = data.load_cifar10("sample")
    for name, image in zip(("cat.png", "dog.png"), sample.x_test):
        Image.fromarray(image).resize((50, 40)).save(name)
    (code,) = blocks("Seeing inside")
    names = {}
    exec(code, names)
    assert {key: x.shape for key, x in names["maps"].items()} == {"block_3": (2, 6, 64, 64)}
    assert names["rollout"].shape == names["relevance"].shape == (2, 8, 8)
    assert {key: x.shape for key, x in names["features"].items()} == {
        "block_1": (2, 8, 8, 192),
        "block_3": (2, 8, 8, 192),
    }
    assert Path("cats.png").stat().st_size > 10_000
