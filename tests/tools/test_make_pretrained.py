"""The model that comes with the package."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from PIL import Image
from support.scripts import load_script

import vit_tf
from vit_tf import build_vit, data
from vit_tf.commands import main as cli
from vit_tf.hub.sources import PACKAGED

make_pretrained = load_script("make_pretrained", "tools")


@pytest.fixture(scope="module")
def sample():
    return data.load_cifar("sample")


@pytest.mark.slow
def test_is_as_accurate_as_it_says(sample):
    said = json.loads((PACKAGED["cifar10"] / "config.json").read_text())["results"]
    assert said["test_images"] == 10_000
    model = build_vit(weights="cifar10", include_preprocessing=True)
    logits = keras.ops.convert_to_numpy(model(sample.x_test.astype("float32")))
    accuracy = (logits.argmax(-1) == sample.y_test).mean()
    # 400 of those images: three standard deviations of a share of 0.8 are 0.06
    assert accuracy == pytest.approx(said["test_accuracy"], abs=0.06)
    assert sum(path.stat().st_size for path in PACKAGED["cifar10"].iterdir()) < 8_000_000


@pytest.mark.slow
def test_predict_needs_no_weights(sample, tmp_path, capsys):
    ships = [i for i in range(len(sample.y_test)) if sample.class_names[sample.y_test[i]] == "ship"]
    paths = [tmp_path / f"{i}.png" for i in ships[:10]]
    for path, i in zip(paths, ships):
        Image.fromarray(sample.x_test[i]).resize((96, 96), Image.Resampling.BICUBIC).save(path)
    cli.main(["predict", *map(str, paths), "--json", "--top", "1"])
    printed = capsys.readouterr()
    assert "cifar10 is a small model of ten classes: --weights takes others" in printed.err
    found = [entry["predictions"][0]["label"] for entry in json.loads(printed.out)]
    assert found.count("ship") >= 6


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(ValueError, match="the folder 'cifar10' has no config.json"):
        vit_tf.load("cifar10")


def write_run(folder, accuracy):
    (folder / "model").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / "model" / name).write_bytes((PACKAGED["cifar10"] / name).read_bytes())
    (folder / "metrics.json").write_text(json.dumps({"accuracy": accuracy}))


@pytest.fixture
def as_whole(monkeypatch, sample):
    """Lets the sample pass for all of CIFAR-10."""
    images = dataclasses.replace(sample, name="cifar10")
    monkeypatch.setattr(make_pretrained.data, "load_cifar", lambda source: images)


@pytest.mark.slow
def test_make_pretrained(as_whole, tmp_path, capsys):
    write_run(tmp_path / "run", accuracy=0.7)
    out = tmp_path / "package" / "vit_cifar10"
    make_pretrained.main([str(tmp_path / "run"), "--data", "any", "--out", str(out)])
    stored = json.loads((out / "config.json").read_text())
    assert f"{stored['results']['test_accuracy']:.2%}" in capsys.readouterr().out
    assert stored["results"]["test_images"] == 400
    assert [path.name for path in out.parent.iterdir()] == ["vit_cifar10"]
    original, copy = (vit_tf.load(source).model for source in ("cifar10", out))
    for a, b in zip(original.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(a.value, b.value)  # both are float16


@pytest.mark.slow
def test_make_pretrained_refuses_what_got_worse(as_whole, tmp_path):
    write_run(tmp_path / "run", accuracy=0.99)
    with pytest.raises(ValueError, match="the run had 99.00%"):
        make_pretrained.main([str(tmp_path / "run"), "--data", "any", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("place", ["size", "test", "install", "out"])
def test_make_pretrained_fails_before_the_long_test(as_whole, tmp_path, monkeypatch, place):
    """What comes after the test of all images is tried before it."""
    write_run(tmp_path / "run", accuracy=0.7)
    tested, test, out = [], make_pretrained.test, tmp_path / "out"

    def fail(*_):
        raise ValueError("it cannot be done")

    monkeypatch.setattr(make_pretrained, "test", lambda *args: tested.append(len(args[-1])) or test(*args))
    if place == "size":
        monkeypatch.setattr(make_pretrained, "MOST_BYTES", 1000)
    elif place == "out":
        out.write_text("precious")
    else:
        monkeypatch.setattr(make_pretrained, place, fail)
    with pytest.raises(ValueError, match="cannot be done|bytes, at most|is a file"):
        make_pretrained.main([str(tmp_path / "run"), "--data", "any", "--out", str(out)])
    assert tested in ([], [8])
    assert {path.name for path in tmp_path.iterdir()} - {"out"} == {"run"}


def test_make_pretrained_refuses_the_sample(tmp_path):
    with pytest.raises(ValueError, match="is the sample"):
        make_pretrained.main([str(tmp_path), "--data", "sample"])


def test_make_pretrained_wants_a_run(as_whole, tmp_path):
    with pytest.raises(ValueError, match="the folder of a finished run"):
        make_pretrained.main([str(tmp_path), "--data", "any"])
