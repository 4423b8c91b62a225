"""Training that is compiled epoch by epoch, on JAX; here on the CPU, with tiny models."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT

import vit_tf
from vit_tf import build_vit, data
from vit_tf.commands import training_run
from vit_tf.commands.main import main
from vit_tf.data import DataLoader
from vit_tf.data.augment.mixing import MixUpCutMix
from vit_tf.training import Recipe, ending, presets
from vit_tf.training.augmentation import device_augmentation
from vit_tf.training.loop.checkpoints import to_arrays
from vit_tf.training.loop.engines import check_recipe
from vit_tf.training.loop.interrupts import Interrupted

if keras.backend.backend() != "jax":
    pytest.skip("this is about JAX", allow_module_level=True)

import jax

from vit_tf.training import make_optimizer, make_trainer
from vit_tf.training.loop.engines import epoch_functions as device

pytestmark = pytest.mark.every_backend

K, SIDE = 3, 8
# No convolutions: XLA's are slow in loops on a CPU.
TINY = dict(patch_size=4, patch_stem="patches", hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8)
RECIPE = Recipe(
    epochs=4,
    learning_rate=1e-2,
    batch_size=8,
    ema=0.8,
    dropout_rate=0.1,
    clip_norm=1.0,
    crop="pad",
    cutmix=1.0,
    monitor="last",
    checkpoint_minutes=1e9,
)


def arrays(n, seed=0):
    """Images whose class is their brightness."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, n)
    images = labels[:, None, None, None] * 80 + rng.integers(0, 60, (n, SIDE, SIDE, 3))
    return images.astype("uint8"), labels


def start(folder, recipe=RECIPE, n=44):
    keras.utils.set_random_seed(1)
    size = dict(image_size=SIDE, num_classes=K, dropout_rate=recipe.dropout_rate)
    vit = build_vit("vit_cifar10", include_preprocessing=True, **TINY, **size)
    train, validation = DataLoader(*arrays(n), K, recipe.batch_size), DataLoader(*arrays(10, 1), K, 10)
    size = (SIDE, SIDE)
    return make_trainer(vit, recipe, train, validation, size, folder, engine="compiled-epoch")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four epochs without interruption: its trainer and its state."""
    trainer = start(tmp_path_factory.mktemp("whole"))
    trainer.run()
    return trainer, to_arrays(trainer.engine.variables)


def make_again(folder, whole):
    """The trainer of `whole` at the start of its run, with what was compiled there."""
    trainer, compiled = start(folder), whole[0].engine
    trainer.engine.compute_epoch = compiled.compute_epoch
    trainer.engine.compute_logits = compiled.compute_logits
    trainer.engine.prepare = lambda steps: None
    return trainer


# ---------------------------------------------------------------------------------------------------
# The compiled epoch
# ---------------------------------------------------------------------------------------------------
def batch_norm_network():
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(6, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(K, name="head"),  # AdamW's, and Muon's is the other
        ]
    )


def drawn_epoch(key, *settings):
    """What `draw_epoch` draws, as NumPy arrays: JAX compiles each slice."""
    drawn = jax.jit(lambda key: device.draw_epoch(key, *settings, (SIDE, SIDE)))(key)
    return jax.tree.map(np.asarray, drawn)


def test_epoch_is_that_of_keras():
    """Keras's own `train_on_batch` on the same batches, with BatchNormalization, whose averages move."""
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    images, labels = arrays(20)
    targets = np.eye(K, dtype="float32")[labels]
    rates = np.array([1e-2, 3e-2], "float32")
    networks = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        network = batch_norm_network()
        network.compile(make_optimizer(network, "muon", ema=0.9), loss, metrics=["accuracy"])
        network.optimizer.build(network.trainable_variables)
        networks.append(network)
    ours, theirs = networks
    augmentation = device_augmentation(Recipe(crop="none", flip=False), (SIDE, SIDE, 3))
    groups = device.groups(ours, augmentation, ours.optimizer)
    epoch = device.make_epoch(device.make_step(ours, augmentation, ours.optimizer, loss), 8)
    key = jax.random.key(5)
    values, (mean_loss, accuracy) = jax.jit(epoch)(device.values_of(groups), images, targets, rates, key)
    device.assign(groups, values)

    order, mixing = drawn_epoch(key, 20, 2, 8, None)
    assert mixing is None and len(set(np.ravel(order).tolist())) == 16  # no image comes twice
    results = []
    for rate, indices in zip(rates, order):
        theirs.optimizer.learning_rate.assign(rate)
        results.append(theirs.train_on_batch(images[indices].astype("float32"), targets[indices])[0])
    # float32 sums in another order
    np.testing.assert_allclose(mean_loss, np.mean(results), rtol=1e-5)
    assert 0 <= accuracy <= 1
    pairs = zip(ours.variables + ours.optimizer.variables, theirs.variables + theirs.optimizer.variables)
    for mine, other in pairs:
        np.testing.assert_allclose(mine.value, other.value, rtol=1e-4, atol=1e-5, err_msg=mine.path)
    assert np.abs(ours.layers[3].moving_mean.value).max() > 1e-3


def test_epoch_is_its_steps(tmp_path, whole):
    """All that draws: augmentation, mixing, dropout."""
    trainer, recipe = make_again(tmp_path, whole), RECIPE
    engine, model = trainer.engine, trainer.model
    step = device.make_step(model, engine.augmentation, engine.optimizer, model.loss)
    mix = MixUpCutMix(recipe.mixup, recipe.cutmix)
    key = jax.random.fold_in(engine.key, 0)
    rates = engine.rates(trainer.next_steps)
    order, mixing = drawn_epoch(key, 44, 5, 8, mix)
    values, step = device.values_of(engine.groups), jax.jit(step)
    losses = []
    for i in range(5):
        drawn = {name: array[i] for name, array in mixing.items()}
        images, targets = engine.loader.images[order[i]], np.eye(K)[engine.loader.labels[order[i]]]
        values, (loss, _) = step(values, images, targets, rates[i], drawn)
        losses.append(float(loss))
    # The same epoch by the run of `whole`, which begins alike.
    row = whole[0].progress.rows[0]
    np.testing.assert_allclose(row["loss"], np.mean(losses), rtol=1e-5)  # other sums, float32
    together, _ = engine.compute_epoch(device.values_of(engine.groups), *engine.arrays, rates, key)
    # Adam turns round-off in small gradients into steps, hence 1e-4 of weights of about 0.3.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), values, together)
    assert len(set(losses)) == 5


def test_rates_follow_the_schedule(tmp_path):
    trainer = start(tmp_path)
    rates = trainer.engine.rates(trainer.next_steps)
    middles = (np.arange(5) + 0.5) / 20
    expected = [1e-2 * (m / 0.1 if m < 0.1 else 0.5 + 0.5 * np.cos(np.pi * (m - 0.1) / 0.9)) for m in middles]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_predict_fills_the_last_batch(whole):
    network = whole[0].model
    images = arrays(7)[0]
    logits = jax.jit(device.make_predict(network, batch_size=3))(
        device.values_of(network.trainable_variables),
        device.values_of(network.non_trainable_variables),
        images,
    )
    # float32 through two compiled programs
    np.testing.assert_allclose(logits, network.predict_on_batch(images), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------
# The loop
# ---------------------------------------------------------------------------------------------------
def test_run_learns_and_validates_averages(whole):
    trainer, state = whole
    rows = trainer.progress.rows
    assert len(rows) == 4 and rows[-1]["step"] == 20 and trainer.progress.images == 160
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["val_loss"] < rows[0]["val_loss"]
    assert trainer.progress.best["epoch"] == 4
    own = np.concatenate([np.ravel(v.value) for v in trainer.model.trainable_variables])
    trainer.load_best()
    averaged = np.concatenate([np.ravel(v.value) for v in trainer.model.trainable_variables])
    assert np.abs(own - averaged).max() > 1e-3
    logits = trainer.model.predict_on_batch(trainer.engine.validation.images)
    accuracy = np.mean(logits.argmax(-1) == trainer.engine.validation.labels)
    assert accuracy == rows[-1]["val_accuracy"]
    from_here = {name for name, array in state.items() if name.startswith("augmentation/")}
    assert len(from_here) == 2  # the seeds of flip and crop


def test_resume_is_exact(tmp_path, whole):
    first = make_again(tmp_path, whole)
    write_history = first.write_history

    def stop_after_two():
        write_history()
        first.interrupts.requested = first.progress.epoch == 2

    first.write_history = stop_after_two
    with pytest.raises(Interrupted):
        first.run()
    second = make_again(tmp_path, whole)
    assert second.resume() and second.progress.epoch == 2
    second.run()
    state = to_arrays(second.engine.variables)
    assert state.keys() == whole[1].keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, whole[1][name], err_msg=name)

    def untimed(trainer):
        timed = ("seconds", "images_per_second")
        return [{k: v for k, v in row.items() if k not in timed} for row in trainer.progress.rows]

    assert untimed(second) == untimed(whole[0])


def test_diverging_run_says_so(tmp_path):
    trainer = start(tmp_path)
    trainer.engine.prepare = lambda steps: None
    trainer.engine.compute_epoch = lambda values, *_: (values, (np.nan, 0.1))
    with pytest.raises(
        ValueError, match="nan at the steps until 5 .batch 5 of epoch 1.*step-00000000.*lower --learning-rate"
    ):
        trainer.run()


# ---------------------------------------------------------------------------------------------------
# Augmentation
# ---------------------------------------------------------------------------------------------------
def test_augmentation_model():
    recipe = Recipe(crop="affine", randaugment=5.0, random_erasing=0.5)
    model = device_augmentation(recipe, (SIDE, SIDE, 3))
    names = [layer.__class__.__name__ for layer in model.layers[1:]]
    assert names == ["RandomFlip", "RandomAffine", "RandomAffine", "RandomColor", "RandomErasing"]
    none = device_augmentation(Recipe(crop="none", flip=False), (SIDE, SIDE, 1))
    grey = arrays(2)[0][..., :1]
    np.testing.assert_array_equal(none(grey, training=True), grey)


# ---------------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "images, labels, batch_size, message",
    [
        (np.zeros((4, 8, 8, 3), "float32"), np.zeros(4, int), 2, "uint8 array"),
        (
            np.zeros((4, 9, 8, 3), "uint8"),
            np.zeros(4, int),
            2,
            r"are \(9, 8, 3\), and the model takes",
        ),
        (np.zeros((4, 8, 8, 3), "uint8"), np.zeros((4, K), bool), 2, "one class per image"),
        (np.zeros((4, 8, 8, 3), "uint8"), np.zeros(4, int), 5, "--batch-size 5 for 4 images"),
    ],
)
def test_arrays_are_checked(images, labels, batch_size, message, tmp_path):
    loader = DataLoader(images, labels, K, batch_size)
    vit = build_vit("vit_cifar10", **TINY, image_size=SIDE, num_classes=K)
    recipe = Recipe(crop="none", batch_size=batch_size)
    with pytest.raises(ValueError, match=message):
        make_trainer(vit, recipe, loader, loader, (SIDE, SIDE), tmp_path, engine="compiled-epoch")


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(crop="resized"), "supports --crop pad, affine, none"),
        (
            dict(crop="none", cache=True),
            "does not support --cache, got True: leave the option out, give --no-cache if",
        ),
        (
            dict(crop="none", progressive_resizing="0.5,1"),
            "give --progressive-resizing none if a preset has it",
        ),
        (dict(crop="none", lora_rank=2), "not support --lora-rank"),
        (dict(crop="none", class_weights="balanced"), "not support --class-weights"),
    ],
)
def test_recipes_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        check_recipe("compiled-epoch", Recipe(**settings))


def test_other_backends(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="KERAS_BACKEND=jax"):
        device.make_step(None, None, None, None)


# ---------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------
@pytest.fixture
def tiny(monkeypatch):
    """Less to compile: a tiny preset, a rehearsal with as many images as are tested, no plots."""
    recipe = dict(
        epochs=2,
        batch_size=16,
        learning_rate=1e-2,
        crop="none",
        ema=0.5,
        mixed_precision=True,
        monitor="last",
    )
    preset = presets.Preset(recipe, None, "vit_cifar10", TINY, "compiled-epoch")
    monkeypatch.setitem(presets.PRESETS, "gpu-tiny", preset)
    drawn = []
    monkeypatch.setattr(ending, "draw_report", lambda rows, test, logits, *_: drawn.append(logits))
    monkeypatch.setattr(ending, "NUM_REHEARSED", 20)
    yield drawn
    keras.config.set_dtype_policy("float32")


def test_command(tiny, monkeypatch, tmp_path, capsys):
    with monkeypatch.context() as patch:
        for name in ("tensorflow", "grain", "huggingface_hub"):  # are not on every machine with a GPU
            patch.setitem(sys.modules, name, None)
        x, y = arrays(60)
        np.savez(tmp_path / "tiny.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
        options = ["--preset", "gpu-tiny", "--out", str(tmp_path / "run")]
        assert main(["train", "--data", str(tmp_path / "tiny.npz"), *options]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test_images"] == 20 and metrics["epochs"] == 2 and metrics["best_epoch"] == 2
    assert metrics["compile_seconds"] > 0 and metrics["device"]
    assert f"test accuracy {metrics['accuracy']:.2%}" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "history.csv", "metrics.json", "model", "checkpoints"} <= names
    assert [logits.shape for logits in tiny] == [(20, 10)] * 2  # the rehearsal, and the end
    keras.config.set_dtype_policy("float32")
    images = data.load_cifar(tmp_path / "tiny.npz")
    classifier = vit_tf.load(tmp_path / "run" / "model")
    predicted = [prediction[0][0] for prediction in classifier.predict(list(images.x_test), top=1)]
    accuracy = np.mean([name == images.class_names[i] for name, i in zip(predicted, images.y_test)])
    assert abs(accuracy - metrics["accuracy"]) <= 0.05  # bfloat16 there, float32 here: one image of 20


def test_command_on_image_files(tiny, tmp_path):
    for i, image in enumerate(arrays(60)[0]):
        path = tmp_path / "images" / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    options = ["--preset", "gpu-tiny", "--image-size", str(SIDE), "--out", str(tmp_path / "run")]
    assert main(["train", "--data", str(tmp_path / "images"), *options]) == 0
    assert vit_tf.load(tmp_path / "run" / "model").labels == ("cat", "dog")


def test_presets():
    preset = presets.get_preset("gpu")
    with keras.StatelessScope(initialize_variables=False):
        model = build_vit(preset.variant, **preset.hyperparameters)
        assert vit_tf.count_flops(model).totals.parameters <= 10_000_000
    for name in ("gpu", "gpu-long", "gpu-tiny"):
        check_recipe(presets.get_preset(name).engine, presets.get_recipe(name))


def test_the_engine_needs_jax(monkeypatch):
    monkeypatch.setattr(training_run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install 'jax"):
        training_run.require_engine_backend("compiled-epoch")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "train_cifar10.py", "--data", "sample", "--preset", "gpu"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "KERAS_BACKEND=jax" in done.stderr
