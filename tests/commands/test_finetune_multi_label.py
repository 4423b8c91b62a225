"""Fine-tuning on images with several labels, and with one logit: coloured squares, trained from scratch."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import vit_tf
from vit_tf import training, variants
from vit_tf.commands.main import main
from vit_tf.predictions import probabilities
from vit_tf.training import ending

TINY = dict(image_size=16, patch_size=8, num_layers=1, hidden_dim=32, num_heads=2, mlp_dim=32)
COLORS = {"blue": (20, 20, 230), "green": (20, 200, 20), "red": (230, 20, 20)}
FAST = "--epochs 24 --batch-size 16 --learning-rate 1e-2 --layer-decay 1 --label-smoothing 0 --crop none"
TRAINED = [*FAST.split(), *"--drop-path-rate 0 --monitor loss --cache --validation-fraction 0.2".split()]


def squares(colors, generator):
    """A grey picture with a square of each color, each in a quarter of its own."""
    pixels = generator.integers(90, 140, (16, 16, 3)).astype("uint8")
    for color, quarter in zip(colors, generator.permutation(4)):
        y, x = 8 * (quarter // 2), 8 * (quarter % 2)
        pixels[y + 1 : y + 7, x + 1 : x + 7] = COLORS[color]
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """The folder of 96 pictures with none to three squares each, and a CSV of two forms."""
    folder = tmp_path_factory.mktemp("colors")
    generator = np.random.default_rng(0)
    cells, columns = ["image,labels"], [",".join(["image", *COLORS])]
    for i in range(96):
        has = generator.random(3) < (0.5, 0.5, 0.25)
        names = [name for name, there in zip(COLORS, has) if there]
        squares(names, generator).save(folder / f"{i}.png")
        cells.append(f"{i}.png,{'|'.join(names)}")
        columns.append(",".join([f"{i}.png", *map(str, has.astype(int))]))
    (folder / "cells.csv").write_text("\n".join(cells))
    (folder / "columns.csv").write_text("\n".join(columns))
    return folder


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(variants.VARIANTS, "vit_cifar10", variants.get_variant("vit_cifar10", **TINY))


def run(source, out, *options):
    command = [str(source), "--out", str(out), "--model", "vit_cifar10", *options]
    assert main(["finetune", *command]) in (None, 0)
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def trained(colors, tmp_path_factory):
    """A finished multi-label run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants.VARIANTS, "vit_cifar10", variants.get_variant("vit_cifar10", **TINY))
        return out, run(colors / "cells.csv", out, *TRAINED)


@pytest.mark.slow
def test_a_multi_label_run(colors, trained):
    out, metrics = trained
    assert metrics["task"] == "multi-label" and list(metrics["classes"]) == list(COLORS)
    assert metrics["mean_average_precision"] > 0.95 and metrics["macro_f1"] > 0.85
    written = {path.name for path in out.iterdir()}
    assert {"curves.png", "average_precision.png", "predictions.png"} <= written
    assert "confusion.png" not in written
    assert "val_map" in (out / "history.csv").read_text().splitlines()[0]
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["thresholds"] == metrics["thresholds"] and len(metrics["thresholds"]) == 3
    assert json.loads((out / "config.json").read_text())["model"]["task"] == "multi-label"


@pytest.mark.slow
def test_the_model_of_a_multi_label_run_predicts_sets(colors, trained, tmp_path, capsys):
    """Sigmoid of the logits, the thresholds of validation, and the right colours in new pictures."""
    out, metrics = trained
    classifier = vit_tf.load(out / "model")
    generator = np.random.default_rng(1)
    sets = [(), ("red",), ("blue", "green"), ("blue", "green", "red")]
    images = [squares(names, generator) for names in sets]
    found = classifier.predict(images)
    assert sum({x.label for x in row if x.selected} == set(names) for row, names in zip(found, sets)) >= 3
    logits = np.asarray(classifier.model.predict_on_batch(classifier.preprocessing(images)))
    expected = probabilities(logits, "sigmoid")
    for row, shares in zip(found, expected):
        by_label = {prediction.label: prediction for prediction in row}
        for name, share, threshold in zip(COLORS, shares, metrics["thresholds"]):
            assert by_label[name].probability == pytest.approx(share, abs=1e-6)
            assert by_label[name].selected == (share >= threshold)
    images[0].save(tmp_path / "none.png")
    main(["predict", str(tmp_path / "none.png"), "--weights", str(out / "model"), "--json"])
    (answer,) = json.loads(capsys.readouterr().out)
    assert [x["selected"] for x in answer["predictions"]] == [x.selected for x in found[0]]


@pytest.mark.slow
def test_small_data_trains_on_several_labels(colors, trained, tmp_path, monkeypatch):
    """MixUp, CutMix, averages and class weights, from a column per class; the head is kept."""
    monkeypatch.setattr(ending, "rehearse", lambda *_: None)  # saves time; the others do it
    out, _ = trained
    options = ["--recipe", "small-data", "--weights", str(out / "model"), "--epochs", "1", "--flip-tta"]
    command = [str(colors / "columns.csv"), "--out", str(tmp_path / "run"), *options]
    assert main(["finetune", *command, "--class-weights", "balanced"]) in (None, 0)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["new_head"] is False and config["command"]["task"] is None
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["mean_average_precision"] > 0.9


@pytest.mark.slow
def test_an_interrupted_multi_label_run_goes_on_bit_by_bit(colors, trained, tmp_path, monkeypatch):
    """It is told by the folder alone what it was trained for."""
    monkeypatch.setattr(ending, "rehearse", lambda *_: None)
    original, out = training.Trainer.count, tmp_path / "run"

    def count(trainer, *trained):
        original(trainer, *trained)
        trainer.interrupts.requested = trainer.progress.step == 3

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "count", count)
        command = [str(colors / "cells.csv"), "--out", str(out), "--model", "vit_cifar10", *TRAINED]
        assert main(["finetune", *command]) == 130
    assert main(["finetune", "--resume", str(out)]) in (None, 0)
    whole, resumed = (json.loads((run / "metrics.json").read_text()) for run in (trained[0], out))
    timed = ("seconds", "images_per_second")
    assert [resumed[name] for name in resumed if name not in timed] == [
        whole[name] for name in whole if name not in timed
    ]
    before, after = (load_file(run / "model" / "model.safetensors") for run in (trained[0], out))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


@pytest.mark.slow
def test_a_binary_run(colors, tmp_path, capsys):
    """One logit, the probability of the second class, and a threshold from validation."""
    rows = [line.split(",") for line in (colors / "columns.csv").read_text().splitlines()[1:]]
    lines = [f"{image},{'with' if blue == '1' else 'any'}" for image, blue, *_ in rows]
    (colors / "blue.csv").write_text("\n".join(["image,label", *lines]))
    out = tmp_path / "run"
    metrics = run(colors / "blue.csv", out, *TRAINED, "--task", "binary")
    assert metrics["accuracy"] > 0.8 and metrics["roc_auc"] > 0.9 and metrics["average_precision"] > 0.9
    assert np.sum(metrics["confusion"]) == metrics["test_images"] and "ROC AUC" in capsys.readouterr().out
    classifier = vit_tf.load(out / "model")
    assert classifier.model.output_shape == (None, 1) and classifier.labels == ("any", "with")
    generator = np.random.default_rng(2)
    images = [squares(names, generator) for names in (("blue",), ("red",), ("blue", "green"), ())]
    found = classifier.predict(images, top=2)
    assert [next(x.label for x in row if x.selected) for row in found] == ["with", "any", "with", "any"]
    assert sum(share for _, share in found[0]) == pytest.approx(1)
    assert {"confusion.png", "predictions.png"} <= {path.name for path in out.iterdir()}


@pytest.mark.parametrize(
    ("table", "task", "match"),
    [
        ("cells.csv", "single-label", "one class per image, and .* of 96 images have several or none"),
        ("cells.csv", "binary", "one class per image"),
    ],
)
def test_a_task_that_does_not_fit_the_labels(colors, tmp_path, table, task, match):
    with pytest.raises(ValueError, match=match):
        run(colors / table, tmp_path / "run", "--task", task)
    assert not (tmp_path / "run").exists()
