"""`quantize`: what is measured, which settings are kept, when it refuses; and each runtime end to end."""

import json
import re
from importlib import import_module
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import randomize

from vit_tf import build_vit, data
from vit_tf.classifier import Classifier
from vit_tf.commands import quantize as command
from vit_tf.commands.main import main
from vit_tf.data import CIFAR10_CLASSES
from vit_tf.deploy import extras, quality, quantize, quantizing, read_manifest
from vit_tf.deploy.quality import Quality
from vit_tf.deploy.quantizers import keras_quantizer
from vit_tf.deploy.quantizers.candidates import NO_KERNEL, PRODUCTS, STEM, Candidate, Layer, float_layers
from vit_tf.deploy.quantizing import RUNTIMES, Session, Trial
from vit_tf.deploy.runtimes import open_runtime
from vit_tf.labels import MULTI_LABEL
from vit_tf.preprocessing import Preprocessing


# ---------------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------------
class FewImages:
    """Ten images of three classes, each its own logits."""

    def __init__(self, targets, **fields):
        model = SimpleNamespace(outputs=[np.zeros((1, 3))], output_shape=(None, 3))
        self.classifier = Classifier(model, None, ("a", "b", "c"), **fields)
        self.targets = np.asarray(targets, "float32")

    def batches(self, batch_size):
        for i in range(0, len(self.targets), 4):
            yield np.arange(i, min(i + 4, len(self.targets))), self.targets[i : i + 4]


def test_accuracy_and_agreement():
    truth = np.eye(3)[np.arange(10) % 3]
    before, after = truth.copy(), truth.copy()
    before[0] = [0, 1, 0]  # wrong before, right after
    after[1] = after[2] = [1, 0, 0]  # right before, wrong after
    measure = Quality(FewImages(truth)).measure
    first = measure(lambda images: (before[images],))
    assert first == {"score": 0.9, "drop": 0, "drop_error": 0, "top1_agreement": 1}
    second = measure(lambda images: (after[images],))
    assert second["score"] == 0.8 and second["drop"] == pytest.approx(10)
    assert second["top1_agreement"] == 0.7
    assert second["drop_error"] == pytest.approx(100 * np.std([-1, 1, 1, *[0] * 7]) / 10**0.5)


def test_several_labels_per_image():
    truth = np.eye(3)[np.arange(9) % 3]
    truth[0] = [1, 1, 0]
    images = FewImages(truth, problem_type=MULTI_LABEL, thresholds=(0.5, 0.9, 0.5))
    quality = Quality(images)
    assert quality.metric == "mAP"
    logits = 8 * truth - 4
    assert quality.measure(lambda batch: (logits[batch],))["score"] == 1
    worse = logits.copy()
    worse[0, 1] = 1  # below the threshold of 0.9, and still ranked before the others
    results = quality.measure(lambda batch: (worse[batch],))
    assert results["drop"] == 0 and results["drop_error"] is None
    assert results["top1_agreement"] == pytest.approx(8 / 9)


def test_speed_of_models_that_take_turns(monkeypatch):
    calls = []
    runs = {name: lambda batch, name=name: calls.append(name) for name in ("float32", "int8")}
    monkeypatch.setattr(quality, "SECONDS", 0)
    seconds = quality.compare_speed(runs, np.zeros(3))
    assert calls[:4] == ["float32", "int8"] * 2 and set(seconds) == set(runs)
    assert len(calls) == 2 * (quality.WARM_UP + quality.FEWEST_ROUNDS + 1)


def test_what_stays_in_float():
    layers = [Layer("a", "dense", True), Layer("b", "convolution", False), Layer("c", "attention", False)]
    layers += [Layer("d", "convolution", False), Layer("e", "dense", False)]
    candidate = Candidate("", {}, {"convolution": STEM, "attention": PRODUCTS})
    assert float_layers(candidate, layers) == [
        {"kind": "convolution", "reason": STEM, "layers": ["b", "d"]},
        {"kind": "attention", "reason": PRODUCTS, "layers": ["c"]},
        {"kind": "dense", "reason": NO_KERNEL, "layers": ["e"]},
    ]


# ---------------------------------------------------------------------------------------------------
# Choosing
# ---------------------------------------------------------------------------------------------------
def session(*trials):
    """Returns a `Session` whose trials are (drop, speed ratio), or texts for failures."""
    made = Session.__new__(Session)
    made.runtime, made.quality = "openvino", SimpleNamespace(metric="accuracy")
    made.float = Trial("float32", {}, None, None, {"score": 0.9})
    made.trials = [
        Trial(f"t{i}", {}, None, None, error=values)
        if isinstance(values, str)
        else Trial(f"t{i}", {}, None, None, result(*values))
        for i, values in enumerate(trials)
    ]
    return made


def result(drop, speed_ratio, error=0.0):
    changes = dict(drop=drop, drop_error=error, top1_agreement=1.0)
    return dict(score=0.9 - drop / 100, speed_ratio=speed_ratio, **changes)


def test_the_fastest_of_the_accurate_is_kept():
    assert session((0.3, 2.0), (0.1, 1.5), (9, 3)).choose(0.5).name == "t0"
    assert session((0.3, 2.0), (0.1, 1.95), (9, 3)).choose(0.5).name == "t1"  # as fast, and better
    assert session("crashed", (-0.1, 0.7)).choose(0).name == "t1"


def test_a_drop_by_chance():
    assert session((0.4, 2.0, 0.2), (0.2, 1.5, 0.2)).choose(0.5).name == "t1"  # t0 may exceed 0.5
    assert session((0.4, 2.0, 0.4), (0.3, 1.5, 0.3)).choose(0.5).name == "t1"  # both may: the better one


def test_refusal_says_what_was_tried():
    with pytest.raises(ValueError) as caught:
        session((2, 2.0), "no such operator").choose(0.5)
    text = str(caught.value)
    assert text.startswith("int8 costs more than 0.5 points on openvino, from accuracy 90.00% of float32.")
    assert "t0: accuracy 88.00%, -2.00 points; t1: failed (no such operator)" in text
    assert "--max-drop" in text


# ---------------------------------------------------------------------------------------------------
# End to end
# ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def classifier():
    """A small model with a whitened stem, and logits that noise does not change."""
    keras.utils.set_random_seed(3)
    options = dict(image_size=32, patch_size=8, patch_stem="whitened", num_classes=10, num_layers=1)
    model = randomize(build_vit("test_vit", **options), 0.1)
    settings = Preprocessing(32, crop_fraction=1.0)
    return Classifier(model, settings, CIFAR10_CLASSES)


def check(folder, runtime, classifier, manifest):
    report = manifest.quantization
    assert read_manifest(folder) == manifest and manifest.precision == "int8"
    assert manifest.format == RUNTIMES[runtime][0] and manifest.labels == CIFAR10_CLASSES
    assert report["runtime"] == runtime and report["held_out_images"] == 20
    assert report["calibration_images"] == 10
    kept = next(trial for trial in report["tried"] if trial["name"] == report["name"])
    assert kept["error"] is None and kept["drop"] == report["drop"] <= 100
    assert report["bytes_after"] < report["bytes_before"]
    if runtime != "litert":  # whose converter also quantizes large convolutions
        assert any(item["kind"] == "convolution" for item in report["float_layers"])
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    expected = np.asarray(classifier.model.predict_on_batch(images))
    (logits,) = open_runtime(folder, manifest).run(images)
    assert 0 < abs(logits - expected).max() < 0.5 * abs(expected).max()
    return report


@pytest.mark.tensorflow_only
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert", "keras"])
@pytest.mark.filterwarnings("ignore")  # of the runtimes' own tools
def test_runtimes(runtime, classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "SECONDS", 0)
    quantizer = import_module(f"vit_tf.deploy.quantizers.{runtime}_quantizer")
    step = 2 if runtime == "openvino" else 1
    monkeypatch.setattr(quantizer, "CANDIDATES", quantizer.CANDIDATES[:3:step][:2])  # to save time
    lines = []
    manifest = quantize(
        classifier,
        tmp_path / "out",
        "sample",
        runtime=runtime,
        calibration_images=10,
        held_out=20,
        max_drop=100,
        progress=lines.append,
    )
    report = check(tmp_path / "out", runtime, classifier, manifest)
    assert [trial["error"] for trial in report["tried"]] == [None] * len(report["tried"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and len(lines) >= 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_pixels(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "SECONDS", 0)
    options = dict(runtime="onnxruntime", preprocessing=True, calibration_images=10, max_drop=100)
    manifest = quantize(classifier, tmp_path / "out", "sample", held_out=20, **options)
    assert manifest.input_kind == "uint8"
    images = data.load_cifar10("sample").x_test[:4]
    expected = np.asarray(classifier.model.predict_on_batch(classifier.preprocessing(images)))
    (logits,) = open_runtime(tmp_path / "out").run(images)
    assert 0 < abs(logits - expected).max() < 0.5 * abs(expected).max()


@pytest.mark.slow
def test_nothing_is_left_of_a_refusal(classifier, tmp_path, monkeypatch):
    def spoil(candidate, subject, source, images, path):
        model = keras.models.clone_model(subject.model)  # with other weights
        model.save(path)

    monkeypatch.setattr(quality, "SECONDS", 0)
    monkeypatch.setattr(keras_quantizer, "write", spoil)
    monkeypatch.setattr(Quality, "measure", worse_each_time(Quality.measure))
    with pytest.raises(ValueError, match="Tried: dense kernels: accuracy .*, -50.00 points"):
        quantize(classifier, tmp_path / "out", "sample", runtime="keras", held_out=20)
    assert not list(tmp_path.iterdir())


def worse_each_time(measure):
    drops = iter((0.0, 50.0))

    def measured(self, run):
        return measure(self, run) | {"drop": next(drops)}

    return measured


# ---------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------
def test_mistakes_are_found_before_keras(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")

    def fails(message, *options, out="out", data="sample", runtime="keras"):
        words = ["cifar10", str(tmp_path / out), "--data", data, "--runtime", runtime, *options]
        with pytest.raises(ValueError, match=message):
            main(["quantize", *words])

    monkeypatch.setattr(command, "import_backend", lambda: pytest.fail("too late"))
    fails("`max_drop` must be a number in", "--max-drop", "-1")
    fails("`calibration_images` must be a positive int", "--calibration-images", "0")
    fails("`held_out` must be a positive int", "--held-out", "0")
    fails("already exists", out="file")
    fails("it is empty", data=str(tmp_path / "empty"))
    fails("no such path", data=str(tmp_path / "absent"))
    fails("takes normalised images", "--preprocessing")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    fails(r"vit_tf\[openvino\]", runtime="openvino")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_command(tmp_path, capsys, monkeypatch):
    trial = {"name": "b", "settings": {}, **result(0.25, 1.5, 0.1), "bytes": 2e6}
    report = {
        "runtime": "openvino",
        "name": "b",
        "metric": "accuracy",
        "before": 0.9,
        "after": 0.8975,
        "held_out": "validation",
        "held_out_images": 2000,
        "bytes_before": 6e6,
        "bytes_after": 2e6,
        "float_layers": [{"kind": "convolution", "reason": "a reason", "layers": list("vwxyz")}],
        "tried": [{"name": "a", "settings": {}, "error": "no"}, {**trial, "error": None}],
    }
    calls = []

    def fake(*args, **options):
        calls.append((args, options))
        return SimpleNamespace(quantization=json.loads(json.dumps(report)))

    monkeypatch.setattr(quantizing, "quantize", fake)
    monkeypatch.setattr("vit_tf.deploy.quantize", fake)
    out = tmp_path / "out"
    main(["quantize", "cifar10", str(out), "--data", "sample", "--runtime", "keras", "--held-out", "9"])
    assert calls[0][0] == ("cifar10", out, "sample")
    assert calls[0][1]["held_out"] == 9 and calls[0][1]["max_drop"] == 0.5
    text = capsys.readouterr().out
    assert re.search(r"^  a +failed", text, re.M)
    assert re.search(r"^\* b +0.25 ± 0.10 +100.00% +2.00 +1.50 x$", text, re.M)
    assert "accuracy 90.00% in float32, 89.75% in int8 (2,000 validation images)" in text
    assert "in float: v, w, x, ... (5 in all): a reason" in text
