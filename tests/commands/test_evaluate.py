"""`vit-tf evaluate`: metrics against the classifier's own predictions, classes by name, parts of a run."""

import csv
import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import randomize
from PIL import Image

from vit_tf import build_vit, data, load, save_weights
from vit_tf.commands.main import main
from vit_tf.labels import imagenet_classes
from vit_tf.predictions import probabilities
from vit_tf.training import evaluation
from vit_tf.training.evaluation import match_classes
from vit_tf.training.metrics import expected_calibration_error
from vit_tf.training.tasks import SINGLE_LABEL

LABELS = ("apple", "pear", "plum", "quince")


@pytest.fixture
def fruits(hub):
    """The folder of a model of four classes, and a folder of images of three of these, one in upper case."""
    _, weights = hub
    folder = weights / "data"
    rng = np.random.default_rng(1)
    for name, count in (("Apple", 5), ("pear", 4), ("plum", 3)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), "uint8")).save(folder / name / f"{i}.png")
    return weights, folder


def evaluate(capsys, *arguments):
    """Returns (metrics, lines of stderr)."""
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    out, errors = capsys.readouterr()
    return json.loads(out), errors.splitlines()


def own_predictions(weights, folder):
    """Returns logits (n, 4) and labels (n,) in the order of the files."""
    paths = sorted(folder.glob("*/*.png"))
    classifier = load(weights)
    logits = np.concatenate([classifier.model.predict_on_batch(classifier.preprocessing(p)) for p in paths])
    return logits, np.array([LABELS.index(path.parent.name.lower()) for path in paths])


@pytest.mark.slow
def test_metrics_and_files(capsys, fruits, tmp_path):
    weights, folder = fruits
    logits, labels = own_predictions(weights, folder)
    out = tmp_path / "results"
    metrics, _ = evaluate(capsys, folder, "--weights", weights, "--batch-size", 5, "--out", out)
    assert metrics["accuracy"] == (logits.argmax(1) == labels).mean() and metrics["images"] == 12
    error = expected_calibration_error(probabilities(logits, "softmax"), labels)
    assert metrics["expected_calibration_error"] == pytest.approx(error, abs=1e-5)
    assert json.loads((out / "metrics.json").read_text()) == metrics
    header, *rows = csv.reader((out / "per_class.csv").read_text().splitlines())
    assert header == ["class", "precision", "recall", "f1", "images"]
    recalls = {row[0]: float(row[2]) for row in rows if row[2]}
    assert recalls == {LABELS[i]: (logits.argmax(1) == i)[labels == i].mean() for i in range(3)}
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    main(["evaluate", str(folder), "--weights", str(weights)])
    text = capsys.readouterr().out
    assert "precision  recall" in text and f"accuracy {metrics['accuracy']:.2%}, calibration" in text
    assert text.endswith("(12 images: all)\n")


@pytest.mark.slow
def test_a_softmax_at_the_end_is_not_applied_again(fruits):
    weights, folder = fruits
    loaded = load(weights)
    model = loaded.model
    activated = replace(loaded, model=keras.Model(model.inputs, keras.layers.Softmax()(model.outputs[0])))
    images, _ = evaluation.load_images(str(folder), None, str(weights))
    outputs = match_classes(images.class_names, LABELS)
    images, targets = evaluation.encode(images, outputs, len(LABELS), SINGLE_LABEL)
    expected, metrics = (
        evaluation.measure(classifier, images, targets, LABELS, SINGLE_LABEL, batch_size=5)
        for classifier in (loaded, activated)
    )
    error = "expected_calibration_error"
    assert metrics.pop(error) == pytest.approx(expected.pop(error), abs=1e-5)
    assert metrics["accuracy"] == expected["accuracy"] and metrics["confusion"] == expected["confusion"]


@pytest.mark.slow
def test_flip_tta_and_unreadable_images(capsys, fruits):
    weights, folder = fruits
    (folder / "pear" / "bad.png").write_text("words")
    with pytest.raises(ValueError, match="1 of 13 images cannot be read"):
        evaluate(capsys, folder, "--weights", weights)
    metrics, errors = evaluate(capsys, folder, "--weights", weights, "--flip-tta", "--max-bad", 0.1)
    assert metrics["images"] == 12 and [line for line in errors if "left out: pear/bad.png" in line]


@pytest.mark.slow
def test_parts(capsys, fruits):
    weights, folder = fruits
    files = data.split_files(data.find_images(folder), 0.3, 0.3, seed=0)
    run = weights / "run"
    run.mkdir()
    data.write_split(files, run / "split.csv")
    (run / "config.json").write_text(json.dumps({"command": {"data": str(folder)}}))
    (run / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (run / "model" / name).write_bytes((weights / name).read_bytes())
    for part in ("test", "validation", "train", "all"):
        metrics, _ = evaluate(capsys, folder, "--weights", run, "--part", part)
        assert metrics["images"] == (12 if part == "all" else files.splits.count(part))
    assert evaluate(capsys, folder, "--weights", run)[0]["part"] == "test"
    assert evaluate(capsys, folder, "--weights", run / "model")[0]["part"] == "test"
    assert evaluate(capsys, folder, "--weights", weights)[0]["part"] == "all"
    with pytest.raises(ValueError, match="has no part test, only train"):
        evaluate(capsys, folder, "--weights", weights, "--part", "test")


@pytest.mark.slow
def test_several_labels_per_image(capsys, fruits, tmp_path):
    weights, folder = fruits
    config = json.loads((weights / "config.json").read_text()) | {
        "problem_type": "multi_label_classification"
    }
    (weights / "config.json").write_text(json.dumps(config))
    metrics, _ = evaluate(capsys, folder, "--weights", weights, "--out", tmp_path / "out")
    assert metrics["task"] == "multi-label" and metrics["classes"]["apple"]["images"] == 5
    assert (tmp_path / "out" / "average_precision.png").exists()
    lines = [
        "path,label",
        "Apple/0.png,plum|apple",
        "pear/0.png,pear",
        "plum/0.png,apple|pear",
        "plum/1.png,",
    ]
    (folder / "labels.csv").write_text("\n".join(lines))
    metrics, _ = evaluate(capsys, folder / "labels.csv", "--weights", weights)
    counts = {name: values["images"] for name, values in metrics["classes"].items()}
    assert counts["apple"] == counts["pear"] == 2 and counts["plum"] == 1
    (weights / "config.json").write_text(
        json.dumps({**config, "problem_type": "single_label_classification"})
    )
    with pytest.raises(ValueError, match="takes one class per image"):
        evaluate(capsys, folder / "labels.csv", "--weights", weights)
    (weights / "config.json").write_text(json.dumps({**config, "problem_type": "regression"}))
    with pytest.raises(ValueError, match="regression model"):
        evaluate(capsys, folder, "--weights", weights)


@pytest.mark.slow
def test_one_logit_of_two_classes(capsys, fruits):
    weights, folder = fruits
    save_weights(
        randomize(build_vit("test_vit", image_size=32, num_classes=1)), weights / "model.safetensors"
    )
    config = json.loads((weights / "config.json").read_text()) | {"label_names": ["pear", "apple"]}
    (weights / "config.json").write_text(json.dumps(config))
    metrics, _ = evaluate(capsys, folder, "--weights", weights, "--match", "known")
    assert metrics["task"] == "binary" and metrics["images"] == 9 and 0 <= metrics["roc_auc"] <= 1


@pytest.mark.slow
def test_cifar10_sample(capsys, tmp_path):
    metrics, _ = evaluate(capsys, "sample")
    assert metrics["accuracy"] > 0.85 and metrics["images"] == 400 and metrics["part"] == "test"
    with pytest.raises(ValueError, match="'sample' has the parts test and train, got --part validation"):
        evaluate(capsys, "sample", "--part", "validation")


def test_classes_by_name():
    assert match_classes(["Golden_Retriever", "tabby-cat"], ["tabby cat", "golden retriever"]).tolist() == [
        1,
        0,
    ]
    names = imagenet_classes()
    unique = [name if names.index(name) == i else f"{name} ({i})" for i, name in enumerate(names)]
    classes = ["n01440764", "Carassius auratus", "great white shark", "tench, Tinca tinca"]
    assert match_classes(classes, unique).tolist() == [0, 1, 2, 0]
    assert match_classes(["cat", "cow"], ["dog", "cat"], "known").tolist() == [1, -1]
    assert match_classes(["a", "b"], ["x", "y", "z"], "order").tolist() == [0, 1]
    for classes, how, message in (
        (["kat", "dog"], "name", r"1 of 2 classes of DATA .*'kat' \(did you mean 'cat'\?\).*--match known"),
        (["cow"], "known", "1 of 1 classes"),
        (["a", "b", "c"], "order", "DATA has 3 classes, and the model 2 labels"),
    ):
        with pytest.raises(ValueError, match=message):
            match_classes(classes, ["dog", "cat"], how)
