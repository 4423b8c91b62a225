import json

import numpy as np
import pytest
from conftest import randomize
from PIL import Image

import vit_tf
from vit_tf import build_vit, classifier
from vit_tf.preprocessing import Preprocessing

LABELS = ("cat", "dog", "Käfer")
HYPERPARAMETERS = dict(
    image_size=(8, 12), patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=3
)
PREPARE = Preprocessing((8, 12), "bilinear", 0.8, "squash", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.fixture
def saved(tmp_path):
    model = randomize(build_vit("vit_cifar10", **HYPERPARAMETERS, include_preprocessing=PREPARE))
    folder = tmp_path / "new" / "model"
    classifier.save(folder, model, "vit_cifar10", HYPERPARAMETERS, PREPARE, LABELS)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 17, 3), "uint8")
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return folder, model, tmp_path / "image.png"


def test_a_folder_comes_back_with_labels_and_preprocessing(saved):
    folder, model, image = saved
    loaded = vit_tf.load(folder)
    assert loaded.labels == LABELS and loaded.preprocessing == PREPARE
    (best, *_) = loaded.predict(image)
    pixels = np.asarray(PREPARE.resize_and_crop(Image.open(image)))[None]
    logits = np.asarray(model.predict_on_batch(pixels))[0].astype("float64")
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [label for label, _ in best] == [LABELS[i] for i in np.argsort(-expected)]
    # float32, and the normalisation inside and outside the model
    np.testing.assert_allclose([p for _, p in best], np.sort(expected)[::-1], atol=1e-5)
    assert len(loaded.predict([image, image], top=1)) == 2


@pytest.mark.slow
def test_a_multi_label_folder_comes_back_with_its_thresholds(saved, tmp_path):
    folder, model, _ = saved
    assert vit_tf.load(folder).problem_type == "single_label_classification"
    assert vit_tf.load(folder).thresholds is None
    arguments = ("vit_cifar10", HYPERPARAMETERS, PREPARE, LABELS)
    options = {"problem_type": "multi_label_classification", "thresholds": [0.2, 0.5, np.float32(0.25)]}
    classifier.save(tmp_path / "multi", model, *arguments, **options)
    config = json.loads((tmp_path / "multi" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["thresholds"] == [0.2, 0.5, 0.25]
    loaded = vit_tf.load(tmp_path / "multi")
    assert loaded.problem_type == "multi_label_classification" and loaded.thresholds == (0.2, 0.5, 0.25)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"problem_type": "several"}, "`problem_type` must be one of 'single_label_classification', "),
        ({"thresholds": [0.5, 0.5]}, "`thresholds` must be 3 numbers from 0 to 1, one per class, got 2"),
        ({"thresholds": [0.5, 0.5, 1.5]}, "must be 3 numbers from 0 to 1"),
        ({"thresholds": [0.5, 0.5, "x"]}, "must be 3 numbers from 0 to 1"),
        ({"thresholds": [0.5, 0.5, float("nan")]}, "must be 3 numbers from 0 to 1"),
        ({"labels": ("a", "b")}, "`labels` must be 3 names, one per logit, got 2"),
    ],
)
def test_bad_meanings_are_not_saved(saved, tmp_path, options, message):
    options = {"labels": LABELS, "preprocessing": PREPARE, **options}
    with pytest.raises(ValueError, match=message):
        classifier.save(tmp_path / "bad", saved[1], "vit_cifar10", HYPERPARAMETERS, **options)
    assert not (tmp_path / "bad").exists()


@pytest.mark.slow
def test_the_command_reads_it(saved, capsys):
    from vit_tf.commands import main as cli

    folder, _, image = saved
    cli.main(["predict", str(image), "--weights", str(folder), "--json"])
    (result,) = json.loads(capsys.readouterr().out)
    assert {entry["label"] for entry in result["predictions"]} == set(LABELS)


def test_half_a_folder_says_so(saved):
    folder, _, _ = saved
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="has no config.json"):
        vit_tf.load(folder)


def test_bad_sources(saved, tmp_path):
    folder, model, _ = saved
    with pytest.raises(ValueError, match="bare file, which names no variant"):
        vit_tf.load(folder / "model.safetensors")
    headless = build_vit("vit_cifar10", **{**HYPERPARAMETERS, "num_classes": 0})
    vit_tf.save_weights(headless, tmp_path / "headless.safetensors")
    with pytest.raises(ValueError, match="has no head"):
        vit_tf.load(tmp_path / "headless.safetensors", "vit_cifar10")
    gray = {**HYPERPARAMETERS, "in_channels": 1}
    classifier.save(tmp_path / "gray", build_vit("vit_cifar10", **gray), "vit_cifar10", gray, None, LABELS)
    with pytest.raises(ValueError, match="takes images of 1 channels"):
        vit_tf.load(tmp_path / "gray")
