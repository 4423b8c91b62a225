import csv
import json
import zipfile
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from PIL import Image
from support.marks import mostly_slow

import vit_tf
from vit_tf import build_vit, classifier, training, variants
from vit_tf.commands import training_run
from vit_tf.commands.main import main
from vit_tf.preprocessing import get_preprocessing
from vit_tf.training import ending
from vit_tf.training.loop.engines.train_batch import TrainBatchEngine

TINY = dict(image_size=16, patch_size=8, num_layers=2, hidden_dim=16, num_heads=2, mlp_dim=16)
NUM_IMAGES = 24  # of each class


def picture(generator, brightness):
    shape = (*generator.integers(14, 30, 2), 3)
    return Image.fromarray(np.clip(generator.normal(brightness, 40, shape), 0, 255).astype("uint8"))


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """Flat files of three classes that can be told apart by their brightness, and one that is no image."""
    folder = tmp_path_factory.mktemp("data") / "pets"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for label, brightness in (("cat", 40), ("dog", 130), ("Käfer", 220)):
        for i in range(NUM_IMAGES):
            picture(generator, brightness).save(folder / f"{label}.{i}.png")
    (folder / "cat.99.jpg").write_text("not an image")
    return folder


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(ending, "rehearse", lambda *_: None)  # see test_ending.py
    monkeypatch.setitem(variants.VARIANTS, "vit_cifar10", variants.get_variant("vit_cifar10", **TINY))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Pretrained weights, here random ones, of the shrunk variant with another head."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    return vit_tf.save_weights(build_vit("vit_cifar10", **TINY, num_classes=7), path)


def run(source, out, *options):
    command = [str(source), "--out", str(out), "--model", "vit_cifar10", "--max-bad", "0.05", *options]
    return main(["finetune", *command, "--batch-size", "16"])


def weights_of(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.slow
def test_a_run_from_flat_files(pets, weights, tmp_path, capsys, monkeypatch):
    """Learns, reports, and leaves a folder whose model gives the logits that were reported."""
    outputs = []
    original = TrainBatchEngine.predict
    monkeypatch.setattr(
        TrainBatchEngine, "predict", lambda *args: outputs.append(original(*args)) or outputs[-1]
    )
    out = tmp_path / "run"
    options = ["--epochs", "15", "--learning-rate", "3e-3", "--crop", "none", "--layer-decay", "1"]
    assert run(pets, out, "--weights", str(weights), *options, "--cache") in (None, 0)
    printed = capsys.readouterr().out
    names = {path.name for path in out.iterdir()} - {"mistakes.png", ".lock"}
    assert names == {
        *("config.json", "split.csv", "bad_files.csv", "history.csv", "metrics.json", "checkpoints", "model"),
        *("curves.png", "confusion.png", "predictions.png"),
    }
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.6 and f"test accuracy {metrics['accuracy']:.2%}" in printed
    assert list(metrics["classes"]) == ["Käfer", "cat", "dog"] and "precision" in printed
    assert np.sum(metrics["confusion"]) == metrics["test_images"] == 7
    rows = list(csv.DictReader((out / "split.csv").read_text("utf-8").splitlines()))
    assert [sum(row["split"] == part for row in rows) for part in ("train", "validation", "test")] == [
        58,
        7,
        7,
    ]
    assert "cat.99.jpg" in (out / "bad_files.csv").read_text()

    classifier = vit_tf.load(out / "model")
    assert classifier.labels == ("Käfer", "cat", "dog")
    tested = [row for row in rows if row["split"] == "test"]
    ((logits, targets),) = outputs
    view = classifier.preprocessing.resize_and_crop
    images = np.stack([view(Image.open(pets / row["path"])) for row in tested])
    normalized = keras.Sequential([classifier.preprocessing.normalization(), classifier.model])
    np.testing.assert_array_equal(normalized.predict_on_batch(images), logits)
    right = [classifier.labels[i] == row["label"] for i, row in zip(logits.argmax(-1), tested)]
    assert np.mean(right) == metrics["accuracy"] and targets.shape == (7, 3)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("recipe", mostly_slow({name: name for name in training.RECIPES}, ["linear-probe"]))
def test_recipes(pets, weights, tmp_path, recipe):
    """Each trains what it says: the backbone's weights after a run against those before."""
    out = tmp_path / "run"
    options = "--epochs 2 --accumulation-steps 2 --learning-rate 0.01".split()  # steps above epsilon
    run(pets, out, "--weights", str(weights), "--recipe", recipe, *options)
    before = {name: np.array(array) for name, array in read(weights).items()}
    after = weights_of(out)
    assert after.keys() == before.keys() and after["head.weight"].shape == (3, 16)
    everything = {name for name in before if "head" not in name and "whitening" not in name}
    changed = {name for name in everything if not np.array_equal(before[name], after[name])}
    adapted = {f"blocks.{i}.attn.{part}.weight" for i in range(2) for part in ("qkv", "proj")}
    expected = {"linear-probe": set(), "lora": adapted}
    assert changed == expected.get(recipe, everything)


def read(path):
    from safetensors.numpy import load_file

    return load_file(path)


@pytest.mark.slow
def test_precision_memory_and_optimizers(pets, tmp_path):
    """What touches the whole step: mixed precision, rematerialisation, Muon, class weights, step decay."""
    options = "--mixed-precision --remat --optimizer muon --class-weights balanced --schedule step".split()
    run(pets, tmp_path / "run", "--epochs", "1", "--freeze", "blocks:1", *options)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test_images"] == 7


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_layouts_give_the_same_images(pets, tmp_path, capsys):
    """A folder a class, in train/val without test, in a zip; one run each, on frozen features."""
    images = sorted(pets.glob("*.png"))
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for i, path in enumerate(images):
            part = "val" if i % 6 == 0 else "train"
            archive.write(path, f"pets/{part}/{path.name.split('.')[0]}/{i}.png")
    out = tmp_path / "run"
    run(tmp_path / "pets.zip", out, "--recipe", "linear-probe", "--epochs", "1", "--test-fraction", "0")
    rows = list(csv.DictReader((out / "split.csv").read_text("utf-8").splitlines()))
    assert [sum(row["split"] == part for row in rows) for part in ("train", "validation", "test")] == [
        60,
        12,
        0,
    ]
    assert "validation (there are no test images) accuracy" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_resume_needs_the_run_alone_and_no_weights(pets, weights, tmp_path, monkeypatch, capsys):
    """Killed after its first checkpoint; the source of the weights is gone by then."""
    source = tmp_path / "source.safetensors"
    source.write_bytes(weights.read_bytes())
    out = tmp_path / "run"

    def train(trainer):
        trainer.interrupts.requested = True
        original(trainer)

    original = training.Trainer.train_epoch
    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "train_epoch", train)
        options = ["--weights", str(source), "--epochs", "2", "--learning-rate", "1e-9"]
        assert run(pets, out, *options) == 130
    assert f"interrupted at step 1; continue with --resume {out}" in capsys.readouterr().out
    source.unlink()
    assert main(["finetune", "--resume", str(out)]) in (None, 0)
    assert "resumed at step 1: continuing in epoch 1" in capsys.readouterr().out
    before, after = read(weights), weights_of(out)
    for name in set(before) - {"head.weight", "head.bias"}:
        np.testing.assert_allclose(after[name], before[name], atol=1e-6, err_msg=name)


@dataclass
class Dataset:
    class_names: tuple
    channels: int = 3
    image_size: None = None


def test_the_head_is_new_unless_the_weights_know_the_classes(tmp_path):
    labels = ("cat", "dog")
    model = build_vit("vit_cifar10", **TINY, num_classes=2)
    sizes = {**TINY, "num_classes": 2}
    classifier.save(tmp_path, model, "vit_cifar10", sizes, get_preprocessing("vit_cifar10", 16), labels)
    command = {"weights": str(tmp_path), "variant": None, "image_size": None, "engine": "train-batch"}
    command["hyperparameters"] = {}
    kept = training_run.describe_model(command, Dataset(labels), training.TASKS["single-label"])
    assert kept["new_head"] is False and "head.weight" in training_run.open_weights(command, kept).tensors
    new = training_run.describe_model(command, Dataset(("ant", "bee")), training.TASKS["single-label"])
    assert new["new_head"] and "head.weight" not in training_run.open_weights(command, new).tensors
    assert new["hyperparameters"] == kept["hyperparameters"]
    assert "architecture" not in json.loads((tmp_path / "config.json").read_text())  # timm has no such model


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "DATA is missing"),
        (["DATA", "--recipe", "full", "--epochs", "0"], "--epochs must be a positive int"),
        (["DATA", "--weights", "nowhere.npz"], "nowhere.npz"),
        (["DATA", "--model", "vit_cifar"], "did you mean 'vit_cifar10'"),
        (["DATA", "--image-size", "big"], "--image-size must be 224 or 224x288"),
        (["DATA", "--max-bad", "0"], "--max-bad"),
        (["DATA", "--validation-fraction", "0"], "validation"),
        (["DATA", "--lora-rank", "2", "--freeze", "backbone"], "LoRA freezes all weights but"),
        (["DATA", "--freeze", "heads"], "--freeze must be none"),
        (["DATA", "--lora-rank", "2", "--lora-targets", "q"], "--lora-targets must be some of"),
        (
            ["DATA", "--accumulation-steps", "99", "--model", "vit_cifar10", "--max-bad", "1"],
            "never comes to a step",
        ),
        (["nowhere"], "nowhere"),
        (["--resume", "nowhere"], "there is no run in 'nowhere'"),
    ],
)
def test_bad_commands(options, message, pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        main(["finetune", *(str(pets) if option == "DATA" else option for option in options)])
    assert not list(tmp_path.rglob("step-*")) + list(tmp_path.rglob("config.json"))


def test_bad_data_sets(tmp_path):
    """One line each; what all of them say is tested beside the code that finds images."""
    generator = np.random.default_rng(0)
    (tmp_path / "empty").mkdir()
    for label, count in (("cat", 5), ("dog", 1)):
        (tmp_path / "few" / label).mkdir(parents=True)
        for i in range(count):
            picture(generator, 100).save(tmp_path / "few" / label / f"{i}.png")
    for name, message in (("empty", "it is empty"), ("few", "'dog' has 1")):
        with pytest.raises(ValueError, match=message):
            run(tmp_path / name, tmp_path / "run")
