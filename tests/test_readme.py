"""The Python in README and in the documentation runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT

from vit_tf import data

pytestmark = pytest.mark.tensorflow_only("the documentation shows the default backend")
# These need a network, or a run that the reader has made.
UNAVAILABLE = ("hf:timm/vit_base_patch16_224", "runs/")


def snippets(page):
    """Returns the Python blocks of a page that need nothing but the images that `images` writes."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    return [text for text in code if not any(source in re.sub("#.*", "", text) for source in UNAVAILABLE)]


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample = data.load_cifar("sample")
    for name, image in zip(("cat.png", "dog.png", "cat.jpg"), sample.x_test):
        Image.fromarray(image).resize((50, 40)).save(name)


@pytest.mark.slow
def test_readme(capsys):
    checkpoint, model = snippets("README.md")
    names = {}
    exec(checkpoint.replace("classifier.predict", "answers = classifier.predict"), names)
    assert np.shape([label for label, _ in names["answers"][0]]) == (3,)
    assert len(model.splitlines()) <= 11
    exec(model, names)
    assert names["attention"].shape == (8, 12, 61, 61) and "vit_base_patch16_224" in capsys.readouterr().out


@pytest.mark.slow
def test_explain_guide():
    (code,) = snippets("docs/guides/explain.md")
    names = {}
    exec(code, names)
    assert {key: x.shape for key, x in names["maps"].items()} == {"block_0": (2, 8, 64, 64)}
    assert names["rollout"].shape == names["relevance"].shape == (2, 8, 8)
    assert {key: x.shape for key, x in names["features"].items()} == {"block_0": (2, 8, 8, 256)}
    assert Path("cats.png").stat().st_size > 10_000


# Keras quantizes the layers that it can, and warns of the others.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    ("page", "count"),
    [
        ("build", 6),
        ("pretrained", 0),
        ("embeddings", 1),
        ("predictions", 1),
        ("resolution", 3),
        ("quantization", 1),
    ],
)
def test_guides(page, count):
    code = snippets(f"docs/guides/{page}.md")
    assert len(code) == count
    for text in code:
        exec(text, {})
