import csv
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT

import vit_tf
from vit_tf import data, variants
from vit_tf.commands.main import main
from vit_tf.commands.train import parse_hyperparameters
from vit_tf.training import ending, presets

SCRIPT = ROOT / "scripts" / "train_cifar10.py"
TINY = dict(num_layers=1, hidden_dim=16, num_heads=2, mlp_dim=16)


@pytest.fixture(autouse=True)
def without_rehearsals(monkeypatch):
    monkeypatch.setattr(ending, "rehearse", lambda *_: None)  # see test_ending.py


@pytest.fixture
def tiny(monkeypatch, eager):
    """The small variants, shrunk, and less to compile: what is tested here is the command."""
    for name in ("vit_cifar10", "vit_cifar10_hybrid", "vit_cifar10_tutorial"):
        monkeypatch.setitem(variants.VARIANTS, name, variants.get_variant(name, **TINY, stem_width=8))
    changes = dict(optimizer="adamw", progressive_resizing="none", mixed_precision=False)
    default = presets.PRESETS["default"]
    preset = dataclasses.replace(default, settings={**default.settings, **changes})
    monkeypatch.setitem(presets.PRESETS, "default", preset)


@pytest.fixture
def archive(tmp_path):
    """A data set of 60 + 20 images whose class can be seen: the brightness.

    54 are left to train. Batches of 18 are whole: TensorFlow need not trace a step for the last one.
    """
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 60), ("test", 20)):
        labels = np.arange(n) % 10
        noise = rng.integers(0, 20, (n, 32, 32, 3))
        arrays[f"x_{part}"] = (labels[:, None, None, None] * 23 + noise).astype("uint8")
        arrays[f"y_{part}"] = labels.astype("uint8")
    path = tmp_path / "tiny.npz"
    np.savez(path, **arrays)
    return str(path)


def run(tmp_path, *arguments):
    out = tmp_path / "run"
    return out, main(["train", *arguments, "--out", str(out)])


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["default", "tutorial"])
def test_run_folder(tiny, archive, tmp_path, preset, capsys):
    more = ["--optimizer", "muon", "--progressive-resizing", "0.5,1"] if preset == "default" else []
    options = ["--preset", preset, "--epochs", "2", "--batch-size", "16", *more]
    out, code = run(tmp_path, "--data", archive, *options)
    assert code in (None, 0)
    names = {path.name for path in out.iterdir()}
    assert names - {"mistakes.png"} == {
        *("config.json", "history.csv", "metrics.json", "curves.png", "confusion.png", "predictions.png"),
        *("checkpoints", "model", ".lock"),
    }
    config, metrics = (json.loads((out / f"{n}.json").read_text()) for n in ("config", "metrics"))
    recipe = config["recipe"]
    assert recipe["batch_size"] == 16 and recipe["epochs"] == 2 and recipe["minutes"] is None
    assert config["data"] == metrics["data"] == "tiny"
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    assert len(rows) == metrics["epochs"] == 2
    best = max(range(2), key=lambda i: float(rows[i]["val_accuracy"]))
    assert metrics["best_epoch"] == best + 1
    assert np.sum(metrics["confusion"]) == 20
    assert metrics["images_per_second"] > 0 and 0 <= metrics["accuracy"] <= metrics["top5_accuracy"] <= 1
    assert f"test accuracy {metrics['accuracy']:.2%}" in capsys.readouterr().out

    # The folder of the model gives the accuracy that was reported.
    images = data.load_cifar(archive)
    classifier = vit_tf.load(out / "model")
    size = classifier.model.input_shape[1:3]
    x = keras.ops.image.resize(images.x_test.astype("float32"), size)
    logits = classifier.model.predict(classifier.preprocessing.normalization()(x), verbose=0)
    accuracy = (logits.argmax(-1) == images.y_test).mean()
    assert accuracy == pytest.approx(metrics["accuracy"], abs=0.051)  # one image on the edge
    checkpoint = next((out / "checkpoints").glob("step-00000008-*"))  # 54 images in batches of 16, twice
    assert checkpoint.stat().st_size > 0


@pytest.mark.slow
def test_learns_what_can_be_seen(archive, tmp_path):
    changes = "--progressive-resizing 0.5,1 --set num_layers=1 hidden_dim=48 mlp_dim=48".split()
    out, _ = run(tmp_path, "--data", archive, "--epochs", "60", "--batch-size", "18", *changes)
    assert json.loads((out / "metrics.json").read_text())["accuracy"] > 0.5


@pytest.mark.slow
def test_sample_marks_every_output(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["train", "--data", "sample", "--epochs", "1"])
    (out,) = (tmp_path / "runs").iterdir()
    assert "-sample-" in out.name
    for name in ("config", "metrics"):
        assert json.loads((out / f"{name}.json").read_text())["data"] == "sample"
    printed = capsys.readouterr().out
    assert "*** SAMPLE:" in printed and "test (sample) accuracy" in printed


@pytest.mark.slow
def test_minutes_end_a_run(tiny, archive, tmp_path):
    out, _ = run(tmp_path, "--data", archive, "--minutes", "0.05")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["seconds"] < 60
    assert json.loads((out / "config.json").read_text())["recipe"]["epochs"] is None


@pytest.mark.slow
def test_tensorboard(tiny, archive, tmp_path, monkeypatch):
    arguments = ["--data", archive, "--epochs", "1", "--tensorboard"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
        with pytest.raises(ValueError, match="pip install tensorboard"):
            run(tmp_path, *arguments)
    assert not (tmp_path / "run").exists()
    pytest.importorskip("tensorboard")
    out, _ = run(tmp_path, *arguments)
    assert list((out / "tensorboard").rglob("*tfevents*"))


@pytest.mark.slow
def test_mixed_precision_and_hyperparameters(tiny, archive, tmp_path):
    changes = ["--set", "patch_stem=conv", "layer_scale_init=0.1"]
    out, _ = run(tmp_path, "--data", archive, "--epochs", "1", "--mixed-precision", *changes)
    names = {weight.path for weight in vit_tf.load(out / "model").model.weights}
    assert {"patch_embedding/projection/kernel", "block_0/attention_scale/gamma"} <= names
    assert json.loads((out / "config.json").read_text())["recipe"]["mixed_precision"] is True
    assert (out / "metrics.json").exists()


@pytest.mark.slow
def test_a_run_goes_on_with_the_data_that_it_began_with(tiny, archive, tmp_path, monkeypatch):
    """It began without a network, on the sample; now the download would work."""
    images = data.load_cifar(archive)
    sample = dataclasses.replace(images, name="sample")
    asked = []
    monkeypatch.setattr(data, "load_cifar", lambda source: asked.append(source) or sample)
    run(tmp_path, "--epochs", "1")
    run(tmp_path, "--epochs", "1")
    assert asked == [None, "sample"]


@pytest.mark.slow
def test_the_same_command_goes_on(tiny, archive, tmp_path, capsys):
    arguments = ["--data", archive, "--epochs", "2", "--batch-size", "18"]
    out, _ = run(tmp_path, *arguments)
    before = (out / "metrics.json").read_text(), (out / "history.csv").read_text()
    run(tmp_path, *arguments)
    assert "resumed at step 6: the run has ended" in capsys.readouterr().out
    assert ((out / "metrics.json").read_text(), (out / "history.csv").read_text()) == before
    assert main(["train", "--resume", str(out)]) in (None, 0)
    arrays = dict(np.load(archive))
    np.savez(archive, **{**arrays, "x_test": arrays["x_test"][:10], "y_test": arrays["y_test"][:10]})
    with pytest.raises(ValueError, match="tiny has .*'test': 10.* the run began with .*'test': 20"):
        main(["train", "--resume", str(out)])
    with pytest.raises(ValueError, match=r"holds a run with epochs 2 \(now 3\)"):
        run(tmp_path, "--data", archive, "--epochs", "3", "--batch-size", "18")


@pytest.mark.slow
def test_a_finished_run_is_trained_further(tiny, archive, tmp_path, capsys):
    arguments = ["--data", archive, "--epochs", "1", "--batch-size", "18"]
    out, _ = run(tmp_path, *arguments)
    assert main(["train", "--resume", str(out), "--epochs", "2", "--learning-rate", "1e-4"]) == 0
    assert "resumed at step 3: continuing in epoch 2" in capsys.readouterr().out
    config, metrics = (json.loads((out / f"{n}.json").read_text()) for n in ("config", "metrics"))
    assert config["recipe"]["epochs"] == 2 and config["recipe"]["learning_rate"] == 1e-4
    assert [stage["recipe"]["epochs"] for stage in config["stages"]] == [1, 2]
    assert config["stages"][1]["from_epoch"] == 1 and metrics["epochs"] == 3 and metrics["stages"] == 2
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    assert [row["stage"] for row in rows] == ["1", "2", "2"] and rows[2]["step"] == "9"
    before = (out / "metrics.json").read_text()
    assert main(["train", "--resume", str(out)]) == 0  # nothing is left to do
    assert (out / "metrics.json").read_text() == before
    with pytest.raises(ValueError, match="cannot be combined with --seed"):
        main(["train", "--resume", str(out), "--epochs", "2", "--seed", "3"])
    (out / "metrics.json").unlink()  # as before the end of the run
    with pytest.raises(ValueError, match="has not ended"):
        main(["train", "--resume", str(out), "--epochs", "2"])


@pytest.mark.slow
def test_best_and_last_weights_are_kept(tiny, archive, tmp_path):
    """`--preset adamw` is as Keras's ModelCheckpoint with save_best_only, and without."""
    options = ["--preset", "adamw", "--epochs", "3", "--batch-size", "18", "--crop", "none", "--no-flip"]
    out, _ = run(tmp_path, "--data", archive, *options)
    recipe = json.loads((out / "config.json").read_text())["recipe"]
    assert recipe["optimizer"] == "adamw" and recipe["keep_last"]
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    images = data.load_cifar(archive)
    _, validation = data.stratified_split(images.y_train, 0.1, 0)
    x, y = images.x_train[validation].astype("float32"), images.y_train[validation]
    for folder, row in (("model", best), ("last", rows[-1])):
        classifier = vit_tf.load(out / folder)
        logits = classifier.model.predict(classifier.preprocessing.normalization()(x), verbose=0)
        smoothed = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
        assert float(smoothed(np.eye(10)[y], logits)) == pytest.approx(float(row["val_loss"]), rel=1e-4)
        assert (logits.argmax(-1) == y).mean() == pytest.approx(float(row["val_accuracy"]))


@pytest.mark.slow
def test_image_files_are_trained_from_scratch(tiny, tmp_path, capsys):
    for i in range(60):
        path = tmp_path / "images" / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 99, (20, 24, 3)) + 150 * (i % 2)
        Image.fromarray(pixels.astype("uint8")).save(path)
    options = ["--epochs", "2", "--batch-size", "18", "--max-bad", "0.1"]
    out, _ = run(tmp_path, "--data", str(tmp_path / "images"), *options)
    assert vit_tf.load(out / "model").labels == ("cat", "dog")
    assert (out / "split.csv").exists() and " on images" not in capsys.readouterr().err
    filters = np.array(vit_tf.load(out / "model").model.get_layer("patch_embedding").whitening).reshape(
        27, 27
    )
    assert np.abs(filters.T @ filters - np.eye(27)).max() > 1  # whitened by these images, not orthogonal
    (tmp_path / "images" / "cat" / "new.png").write_bytes(
        (tmp_path / "images" / "cat" / "1.png").read_bytes()
    )
    assert main(["train", "--resume", str(out), "--epochs", "1"]) == 0
    assert "files that are new since the run began" in capsys.readouterr().out
    (tmp_path / "images" / "cat" / "1.png").unlink()
    with pytest.raises(
        ValueError, match="missing images \\(1\\): 'cat/1.png'; new images \\(1\\): 'cat/new.png'"
    ):
        main(["train", "--resume", str(out)])


def test_errors_come_before_keras_is_imported(tmp_path):
    code = (
        "import sys\n"
        "from vit_tf.commands.main import main\n"
        "for words in (['--preset', 'lonk'], ['--epochs', '0'], ['--data', 'nowhere'],\n"
        "              ['--set', 'layers=6'], ['--resume', 'nowhere'], ['--variant', 'vit_cifar']):\n"
        "    try: main(['train', *words])\n"
        "    except ValueError as error: print(error)\n"
        "    else: sys.exit('no error')\n"
        "sys.exit(3 * bool({'keras', 'tensorflow', 'jax'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") == 6 and "did you mean 'long'" in done.stdout


def test_values_of_set():
    words = [
        "position_table=False",
        "a=true",
        "b=None",
        "c=[1, 1]",
        "d=0.5",
        "pooling=avg",
        'e="True"',
        "f=x=y",
    ]
    expected = dict(position_table=False, a=True, b=None, c=[1, 1], d=0.5, pooling="avg", e="True", f="x=y")
    assert parse_hyperparameters(words) == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--epochs", "0"], "--epochs must be a positive int or None, got 0"),
        (["--minutes", "-1"], "--minutes must be a positive number"),
        (["--batch-size", "0"], "--batch-size must be a positive int"),
        (["--seed", "-1"], "--seed must be an int from 0"),
        (["--resume", "nowhere"], "leave --out out"),
        (["--variant", "vit_cifar"], "did you mean 'vit_cifar10'"),
        (["--set", "num_layers"], "NAME=VALUE, such as num_layers=6, got 'num_layers'"),
        (["--set", "patch_stem=con"], "did you mean 'conv'"),
        (["--set", "layers=6"], "unknown hyperparameter 'layers' .did you mean 'num_layers'"),
        (["--set", "nonsense=1"], "'nonsense'; the hyperparameters are image_size"),
        (["--data", "missing.npz"], "missing.npz"),
        (["--preset", "lonk"], "did you mean 'long'"),
        (["--task", "binary"], "arrays have one class per image"),
    ],
)
def test_bad_arguments(arguments, message, archive, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, "--data", archive, *arguments)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten(archive, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty"):
        run(tmp_path, "--data", archive)


def start(tmp_path, *arguments, **kwargs):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(SCRIPT), *arguments, "--out", str(tmp_path / "run")]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


@pytest.mark.slow
def test_a_run_outlives_its_output_and_ctrl_c_saves(archive, tmp_path):
    """`| head` stops reading, and the run continues."""
    small = (
        "--optimizer adamw --progressive-resizing none --batch-size 18 --set num_layers=1 mlp_dim=16".split()
    )
    process = start(tmp_path, "--data", archive, "--minutes", "5", *small)
    for line in process.stdout:
        if line.startswith("epoch   2"):
            break
    process.stdout.close()
    out, end = tmp_path / "run", time.monotonic() + 60
    while len((out / "history.csv").read_text().splitlines()) < 6 and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    with process.stderr:
        errors = process.stderr.read()
    assert process.wait(60) == 130
    assert errors.count("note: <stdout> cannot be written to (Broken pipe), the run continues") == 1
    assert "stopping after this batch" in errors and "Traceback" not in errors
    assert len((out / "history.csv").read_text().splitlines()) >= 6
    assert list((out / "checkpoints").glob("step-*"))
    assert not list(out.rglob("partial*"))


@pytest.mark.slow
def test_full_disk_is_one_line_and_nothing_half_written(archive, tmp_path):
    limit = 100_000  # bytes a file may have: the weights need more

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(tmp_path, "--data", archive, "--epochs", "1", preexec_fn=small_files)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith("error: ") and "Traceback" not in errors
    assert not (tmp_path / "run").exists()  # the rehearsal found it
