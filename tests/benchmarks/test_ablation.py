"""`benchmarks/ablation.py` and `benchmarks/recipe_ideas.py`: the table, and what each idea changes."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT

from vit_tf import build_vit
from vit_tf.commands.main import parse_arguments
from vit_tf.commands.train import make_command
from vit_tf.data import DataLoader
from vit_tf.training.loop.engines.train_batch import TrainBatchEngine, Trained
from vit_tf.training.optimizers import NORMED_CONVOLUTION, Muon

sys.path.append(str(ROOT / "benchmarks"))
import ablation
import recipe_ideas

COUNT, BATCH = 23, 6  # the last batch has five images


# ---------------------------------------------------------------------------------------------------
# Table
# ---------------------------------------------------------------------------------------------------
def test_table_of_finished_runs(tmp_path, capsys):
    accuracies = {"recipe": (0.80, 0.82), "lookahead": (0.79, 0.80)}
    for name, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            folder = tmp_path / f"{name}-2.5-{seed}"
            folder.mkdir()
            metrics = {"validation_accuracy": accuracy, "epochs": 1.25, "images_per_second": 300 + 2 * seed}
            (folder / "metrics.json").write_text(json.dumps(metrics), "utf-8")
            config = {"data": "none.npz"} if name in ablation.IDEAS else {"command": {"data": "none.npz"}}
            (folder / "config.json").write_text(json.dumps(config), "utf-8")
    options = ["--minutes", "2.5", "--seeds", "2", "--out", str(tmp_path), "--data", "none.npz"]
    ablation.main([*options, "--only", "recipe", "lookahead"])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| the recipe | 1.2 | 301 | 81.0 % | +0.0 | +0.0, +0.0 |",
        "| look-ahead: every 5 steps half of the way | 1.2 | 301 | 79.5 % | -1.5 | -1.0, -2.0 |",
    ]
    assert (tmp_path / "ablation.md").read_text("utf-8").count("\n") == 4
    with pytest.raises(
        ValueError, match="has a run with --data none.npz, got other.npz: name another folder"
    ):
        ablation.main([*options, "--data", "other.npz", "--only", "lookahead"])


def test_every_idea_has_a_row():
    assert set(ablation.IDEAS) == set(recipe_ideas.IDEAS)
    assert not set(ablation.IDEAS) & set(ablation.ROWS)


@pytest.mark.parametrize("name", ablation.ROWS)
def test_options_of_a_row(name):
    """They are options of `vit-tf train`, with values that it accepts."""
    arguments = ["train", "--data", "sample"]
    changed = make_command(parse_arguments([*arguments, *ablation.ROWS[name][1]]))
    assert (changed == make_command(parse_arguments(arguments))) == (name in ("recipe", "again"))


@pytest.mark.parametrize("seeds", ["0", "-1"])
def test_number_of_seeds(seeds):
    with pytest.raises(ValueError, match=f"--seeds must be a positive int, got {seeds}"):
        ablation.main(["--data", "none.npz", "--seeds", seeds])


PARENT = """
import sys
import ablation
from vit_tf.commands import parser
parser.run(lambda: ablation.exit_code([sys.executable, *sys.argv[1:]]))
"""
CHILD = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.default_int_handler)
print("started", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    pathlib.Path(sys.argv[1]).write_text("saved")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes of Windows get no SIGTERM")
def test_a_stopped_ablation_lets_its_run_save(tmp_path):
    saved = tmp_path / "saved"
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, "-c", CHILD, saved],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])},
    )
    with process:
        assert process.stdout.readline() == b"started\n"
        process.terminate()
        assert process.wait() == 130
    assert saved.read_text() == "saved"


# ---------------------------------------------------------------------------------------------------
# Optimizers
# ---------------------------------------------------------------------------------------------------
def variables():
    """The trainable variables of a small hybrid: the same values in each call."""
    keras.utils.set_random_seed(0)
    return build_vit(
        "vit_cifar10_hybrid", stem_width=6, hidden_dim=8, num_heads=2, mlp_dim=12
    ).trainable_variables


def random_gradients(own, seed):
    rng = np.random.default_rng(seed)
    return [keras.ops.convert_to_tensor(rng.normal(size=v.shape).astype("float32")) for v in own]


def values_of(own):
    return [keras.ops.convert_to_numpy(variable.value) for variable in own]


def test_lookahead_is_muon_that_restarts_half_way():
    ahead, plain = variables(), variables()
    slow = values_of(plain)
    optimizers = recipe_ideas.Lookahead(1e-2, weight_decay=0.1), Muon(1e-2, weight_decay=0.1)
    for step in range(1, 12):
        for optimizer, own in zip(optimizers, (ahead, plain)):
            optimizer.apply(random_gradients(own, step), own)
        if step % 5 == 0:
            slow = [(before + now) / 2 for before, now in zip(slow, values_of(plain))]
            for variable, value in zip(plain, slow):
                variable.assign(value)
        for own, expected in zip(values_of(ahead), values_of(plain)):
            np.testing.assert_allclose(own, expected, rtol=0, atol=1e-5)


def test_rate_of_the_stem():
    """The convolutions of the stem turn by half of the angle, other weights change as with Muon."""
    changes = []
    for optimizer in (recipe_ideas.StemRate(1e-4, stem_factor=0.5), Muon(1e-4)):
        own = variables()
        before = values_of(own)
        optimizer.apply(random_gradients(own, 1), own)
        changes.append([now - then for now, then in zip(values_of(own), before)])
    for variable, slow, plain in zip(own, *changes, strict=True):
        is_convolution = variable.path.endswith(NORMED_CONVOLUTION)
        expected = 0.5 * plain if is_convolution else plain
        np.testing.assert_allclose(slow, expected, rtol=0, atol=1e-3 * np.abs(plain).max())


def test_decay_of_the_head():
    own = variables()
    optimizers = recipe_ideas.FreeHead(1e-3, weight_decay=0.1), Muon(1e-3, weight_decay=0.1)
    free, plain = ({v.path for v in own if optimizer.is_decayed(v)} for optimizer in optimizers)
    assert plain - free == {"head/kernel"} and free < plain


# ---------------------------------------------------------------------------------------------------
# Engines
# ---------------------------------------------------------------------------------------------------
class Recorded:
    """An engine that keeps what it would train on."""

    def train_step(self, images, labels, fraction, rate):
        self.steps.append((images, labels, rate))
        return Trained(1, len(images), {"loss": float(len(images))})


def make_engine(idea):
    """Returns an engine of an idea over COUNT images, and a function that trains an epoch."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 4, 5, 3), dtype=np.uint8)
    loader = DataLoader(images, np.arange(COUNT) % 3, 3, BATCH, shuffle=True, seed=7)
    model = keras.Sequential([keras.Input((4, 5, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile(keras.optimizers.SGD(), "categorical_crossentropy")
    # In the order of methods the record takes the place of `TrainBatchEngine.train_step`.
    engine = type("Engine", (idea, Recorded, TrainBatchEngine), {})(model, model, loader, loader)
    engine.steps = []

    def train(epoch=0, start=0, fraction=0.0):
        engine.steps.clear()
        trained = list(engine.train(epoch, start, lambda count: (np.full(count, fraction), np.ones(count))))
        return trained, list(engine.steps)

    return engine, train


def test_flips_alternate():
    engine, train = make_engine(recipe_ideas.AlternatingFlips)
    flips = []
    for epoch in range(3):
        images = np.concatenate([images for images, _, _ in train(epoch)[1]])
        originals = engine.loader.images[engine.loader.order(epoch)]
        mirrored = np.array([not np.array_equal(*pair) for pair in zip(images, originals)])
        np.testing.assert_array_equal(images[mirrored], originals[mirrored][:, :, ::-1])
        flips.append(np.zeros(COUNT, bool))
        flips[epoch][engine.loader.order(epoch)] = mirrored
    assert 0 < flips[0].sum() < COUNT
    np.testing.assert_array_equal(flips[1], ~flips[0])
    np.testing.assert_array_equal(flips[2], flips[0])


def test_flips_from_the_middle_of_an_epoch():
    _, train = make_engine(recipe_ideas.AlternatingFlips)
    whole, rest = train(1)[1], train(1, start=2)[1]
    assert len(rest) == len(whole) - 2
    for (images, labels, _), (expected, expected_labels, _) in zip(rest, whole[2:]):
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, expected_labels)


def test_batches_grow():
    engine, train = make_engine(recipe_ideas.GrowingBatches)
    early, steps = train(fraction=0.49)
    assert [len(images) for images, _, _ in steps] == [3, 3, 3, 3, 3, 3, 3, 2]
    np.testing.assert_allclose([rate for _, _, rate in steps], 0.5**0.5)
    assert [(trained.batches, trained.images) for trained in early] == [(1, 6)] * 3 + [(1, 5)]
    assert [trained.logs["loss"] for trained in early] == [3, 3, 3, 2.5]
    images = np.concatenate([images for images, _, _ in steps])
    np.testing.assert_array_equal(images, engine.loader.images[engine.loader.order(0)])
    _, steps = train(fraction=0.5)
    assert [(len(images), rate) for images, _, rate in steps] == [(6, 1), (6, 1), (6, 1), (5, 1)]


def test_harder_half():
    engine, train = make_engine(recipe_ideas.HardImages)
    assert [len(images) for images, _, _ in train(fraction=0.49)[1]] == [6, 6, 6, 5]
    _, steps = train(fraction=0.5)
    assert [len(images) for images, _, _ in steps] == [3, 3, 3, 3]
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=None)
    for (images, labels, _), (batch, batch_labels) in zip(steps, engine.loader.epoch(0)):
        kept, losses = (
            keras.ops.convert_to_numpy(loss(y, engine.model.predict_on_batch(x)))
            for x, y in ((images, labels), (batch, batch_labels))
        )
        np.testing.assert_allclose(np.sort(kept), np.sort(losses)[-3:], rtol=1e-5)


# ---------------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_run(tmp_path, capsys):
    options = ["--data", "sample", "--minutes", "0.01", "--out", str(tmp_path)]
    recipe_ideas.main(["alternating-flips", *options])
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert metrics["idea"] == "alternating-flips" and 0 <= metrics["validation_accuracy"] <= 1
    assert metrics["epochs"] > 0 and metrics["images_per_second"] > 0
    recipe_ideas.main(["alternating-flips", *options])
    assert "the run has ended" in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text("utf-8")) == metrics
    with pytest.raises(ValueError, match="has a run with another idea, seed: name another folder"):
        recipe_ideas.main(["lookahead", *options, "--seed", "1"])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (["--minutes", "0"], "minutes"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
        (["--variant", "vit_b61"], "vit_b61"),
        (
            ["--data", "grey.npz"],
            "expected arrays of images with 3 channels, such as cifar10.npz, got 'grey.npz'",
        ),
        (["--data", "pets"], "expected arrays of images with 3 channels"),
    ],
)
def test_a_mistake_leaves_no_run(changes, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8), np.arange(40) % 4
    np.savez("grey.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    for i in range(8):
        folder = tmp_path / "pets" / ("cat" if i % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    with pytest.raises((ValueError, OSError), match=match):
        recipe_ideas.main(["lookahead", "--data", "sample", "--out", str(tmp_path / "run"), *changes])
    assert not (tmp_path / "run").exists()
