"""`vit-tf explain`: the files that it writes, and its errors."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.paths import ROOT

from vit_tf import build_vit, classifier, data
from vit_tf.commands.main import main
from vit_tf.preprocessing import get_preprocessing


def explain(*arguments):
    return main(["explain", *map(str, arguments)])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    sample = data.load_cifar("sample")
    paths = [folder / name for name in ("a cat & <co>.png", "wide.jpg")]
    Image.fromarray(sample.x_test[0]).save(paths[0])
    Image.fromarray(sample.x_test[1]).resize((90, 50)).save(paths[1])
    return [str(path) for path in paths]


@pytest.mark.slow
def test_report_of_the_model_in_the_package(photographs, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    explain(*photographs, "--out", str(out))
    assert capsys.readouterr().out.strip() == f"{out / 'report.html'}: 9 figures of 2 images"
    names = "relevance heads_0 heads_1 features cka distances positions filters diagram".split()
    assert {path.name for path in out.iterdir()} == {"report.html", *(f"{name}.png" for name in names)}
    text = (out / "report.html").read_text("utf-8")
    assert text.count("data:image/png;base64,") == 9 + 2
    assert not re.search(r'(src|href)="(?!data:)', text)  # it stands alone
    assert "a cat &amp; &lt;co&gt;.png" in text and "<co>" not in text
    assert len(re.findall(r"<td>\d+\.\d%</td>", text)) == 10  # five classes of each image


@pytest.mark.slow
def test_a_model_without_a_head(photographs, tmp_path):
    sizes = dict(num_classes=0, image_size=[32, 48], num_layers=2, num_registers=1)
    name, prepare = "vit_tiny_patch16_224", get_preprocessing("vit_tiny_patch16_224", image_size=(32, 48))
    classifier.save(tmp_path, build_vit(name, **sizes), name, sizes, prepare, [])
    out = tmp_path / "out"
    explain(photographs[1], "--weights", str(tmp_path), "--layer", "0", "--out", str(out))
    text = (out / "report.html").read_text("utf-8")
    assert "Grad-CAM" not in text and "the class token attends to" in text and "block_0" in text
    with pytest.raises(ValueError, match="has no head"):
        explain(photographs[1], "--weights", str(tmp_path), "--class", "0", "--out", str(out))


@pytest.mark.slow
def test_few_patches_a_learned_query_and_an_earlier_report(photographs, tmp_path):
    sizes = dict(num_classes=2, image_size=[16, 32], num_layers=1, num_heads=2, hidden_dim=8)
    sizes |= dict(pooling="map", num_registers=1)
    name, prepare = "vit_tiny_patch16_224", get_preprocessing("vit_tiny_patch16_224", image_size=(16, 32))
    classifier.save(tmp_path, build_vit(name, **sizes), name, sizes, prepare, ["cat", "dog"])
    out = tmp_path / "out"
    out.mkdir()
    for left in ("heads_1.png", "partial.abcdefgh.relevance.png"):
        (out / left).mkdir() if left.startswith("partial") else (out / left).write_text("old")
    folder = tmp_path / "other"
    folder.mkdir()
    same_name = folder / "wide.jpg"
    same_name.write_bytes(Path(photographs[1]).read_bytes())
    explain(photographs[1], "--weights", str(tmp_path), "--layer", "block_0", "--out", str(out))
    text = (out / "report.html").read_text("utf-8")
    assert "What the mean of all patches attends to in block_0" in text and "there are 2." in text
    assert "learned query of the pooling" in text and "1 block, weights" in text
    names = "relevance heads_0 pooling_0 distances positions filters diagram".split()
    assert {path.name for path in out.iterdir()} == {"report.html", *(f"{name}.png" for name in names)}
    both = [photographs[1], str(same_name)]
    explain(*both, "--weights", str(tmp_path), "--out", str(out))
    text = (out / "report.html").read_text("utf-8")
    assert all(path in text for path in both)  # two of the same name go by their paths


@pytest.mark.slow
def test_a_model_without_a_position_table_and_images_of_shards(photographs, tmp_path):
    sizes = dict(num_classes=2, image_size=[32, 32], num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8)
    sizes |= dict(position_table=False, relative_positions=True)
    name, prepare = "vit_tiny_patch16_224", get_preprocessing("vit_tiny_patch16_224", image_size=32)
    classifier.save(tmp_path / "model", build_vit(name, **sizes), name, sizes, prepare, ["cat", "dog"])
    folders = [tmp_path / "images" / label for label in ("cat", "dog")]
    for folder, image in zip(folders, photographs):
        folder.mkdir(parents=True)
        (folder / "photo.jpg").write_bytes(Path(image).read_bytes())
    data.write_shards(tmp_path / "images", tmp_path / "shards", progress=False)
    out = tmp_path / "out"
    explain(str(tmp_path / "shards"), "--weights", str(tmp_path / "model"), "--out", str(out))
    text = (out / "report.html").read_text("utf-8")
    assert "the model has no table of positions" in text and not (out / "positions.png").exists()
    assert "dog/photo.jpg" in text


def command(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "explain.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )


@pytest.mark.slow
def test_bad_input(photographs, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    out = ["--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="text.png"):
        explain(str(tmp_path / "text.png"), *out)
    with pytest.raises(ValueError, match="up to 16 images, got 17"):
        explain(*photographs[:1] * 17)
    with pytest.raises(ValueError, match="must be an int from 0 to 9, got 10"):
        explain(photographs[0], "--class", "10", *out)
    with pytest.raises(ValueError, match="no block 9"):
        explain(photographs[0], "--layer", "9", *out)
    with pytest.raises(ValueError, match="must be a folder, and .* is a file"):
        explain(photographs[0], "--out", str(tmp_path / "text.png"))
    assert not (tmp_path / "out").exists()
    done = command(tmp_path / "missing.png")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
