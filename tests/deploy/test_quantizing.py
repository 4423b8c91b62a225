"""`quantize`: which settings are kept, when it refuses; and each runtime end to end."""

from importlib import import_module
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import randomize

from vit_tf import build_vit, data
from vit_tf.classifier import Classifier
from vit_tf.data import CIFAR10_CLASSES
from vit_tf.deploy import quality, quantize, read_manifest
from vit_tf.deploy.quality import Quality
from vit_tf.deploy.quantizers import keras_quantizer
from vit_tf.deploy.quantizing import RUNTIMES, Session, Trial
from vit_tf.deploy.runtimes import open_runtime
from vit_tf.preprocessing import Preprocessing


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
    # Two, to save time; of OpenVINO without and with SmoothQuant. The others: `test_convolutions_too`.
    candidates = [item for item in quantizer.CANDIDATES if not item.settings.get("convolutions")]
    monkeypatch.setattr(quantizer, "CANDIDATES", candidates[:2])
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
@pytest.mark.tensorflow_only
def test_keras_and_a_model_that_normalises_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "SECONDS", 0)
    settings = Preprocessing(32, mean=(0.2, 0.4, 0.6), std=(0.3, 0.2, 0.1), crop_fraction=1.0)
    options = dict(image_size=32, patch_size=8, num_classes=10, num_layers=1, include_preprocessing=settings)
    inside = Classifier(randomize(build_vit("test_vit", **options), 0.1), settings, CIFAR10_CLASSES)
    options = dict(runtime="keras", calibration_images=10, held_out=20, max_drop=100)
    manifest = quantize(inside, tmp_path / "out", "sample", **options)
    assert manifest.input_kind == "normalized" and manifest.quantization["tried"][0]["error"] is None
    images = data.load_cifar("sample").x_test[:8]
    pixels = images.astype("float32")
    expected = keras.ops.convert_to_numpy(inside.model(pixels))
    (got,) = open_runtime(tmp_path / "out", manifest).run(settings.normalize(images))
    assert np.abs(got - expected).max() < 0.1 * np.abs(expected).max()  # int8


@pytest.mark.slow
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.filterwarnings("ignore")
def test_convolutions_too(runtime, classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "SECONDS", 0)
    quantizer = import_module(f"vit_tf.deploy.quantizers.{runtime}_quantizer")
    candidates = [item for item in quantizer.CANDIDATES if item.settings["convolutions"]]
    monkeypatch.setattr(quantizer, "CANDIDATES", candidates)
    options = dict(runtime=runtime, calibration_images=10, held_out=20, max_drop=100)
    report = quantize(classifier, tmp_path / "out", "sample", **options).quantization
    assert [trial["error"] for trial in report["tried"]] == [None] * len(report["tried"])
    assert [item["kind"] for item in report["float_layers"]] == ["attention"]
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    expected = np.asarray(classifier.model.predict_on_batch(images))
    (logits,) = open_runtime(tmp_path / "out").run(images)
    assert 0 < abs(logits - expected).max() < 0.5 * abs(expected).max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_pixels(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "SECONDS", 0)
    options = dict(runtime="onnxruntime", preprocessing=True, calibration_images=10, max_drop=100)
    manifest = quantize(classifier, tmp_path / "out", "sample", held_out=20, **options)
    assert manifest.input_kind == "uint8"
    images = data.load_cifar("sample").x_test[:4]
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
