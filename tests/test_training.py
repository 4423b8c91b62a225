import csv
import io

import keras
import numpy as np
import pytest
from rich.console import Console

from vit_tf import augment, build_vit, training


def tiny_vit(**overrides):
    small = dict(image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8)
    return build_vit("vit_cifar10", **{**small, "num_classes": 3, **overrides})


def data(n=24):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 8, 8, 3)).astype("float32")
    return x, np.eye(3, dtype="float32")[rng.integers(0, 3, n)]


def compiled(model=None, **kwargs):
    model = model or training.training_model(tiny_vit(), (8, 8))
    model.compile(
        training.adamw(model, 1e-2, 0.1),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def fit(model, callbacks, epochs=2, n=24):
    x, y = data(n)
    return model.fit(
        x, y, batch_size=8, epochs=epochs, validation_data=(x, y), callbacks=callbacks, verbose=0
    )


def test_training_model_shares_weights_and_resizes():
    vit = tiny_vit()
    model = training.training_model(vit, (6, 10), [augment.RandomFlip(seed=1)])
    assert model.input_shape == (None, 6, 10, 3) and model.output_shape == (None, 3)
    assert [v.path for v in model.trainable_variables] == [v.path for v in vit.trainable_variables]
    x = data(4)[0][:, :6]
    x = np.concatenate([x, x[:, :, :2]], axis=2)
    resized = keras.ops.image.resize(x, (8, 8))
    np.testing.assert_allclose(model(x), vit(resized), atol=1e-5)
    assert np.abs(np.array(model(x, training=True)) - np.array(model(x))).max() > 1e-4
    same_size = training.training_model(vit, (8, 8))
    assert not any(isinstance(layer, augment.Resize) for layer in same_size.layers)


def test_decay_takes_kernels_only():
    """Without gradients a step of AdamW is the decay alone: kernel *= 1 - rate * decay."""
    model = training.training_model(tiny_vit(pooling="token"), (8, 8))
    for variable in model.trainable_variables:
        variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    before = [np.array(v) for v in model.trainable_variables]
    optimizer = training.adamw(model, learning_rate=0.5, weight_decay=0.1)
    optimizer.apply([keras.ops.zeros(v.shape) for v in before], model.trainable_variables)
    kernels = 0
    for variable, old in zip(model.trainable_variables, before):
        factor = 0.95 if variable.path.endswith("/kernel") else 1.0
        kernels += factor != 1
        np.testing.assert_allclose(variable, old * factor, rtol=1e-6, err_msg=variable.path)
    assert kernels == 7  # two of the stem, qkv, projection, fc1, fc2, head


def test_warmup_cosine():
    values = [training.warmup_cosine(p) for p in (0, 0.05, 0.1, 0.55, 1)]
    np.testing.assert_allclose(values, [0, 0.5, 1, 0.5, 0], atol=1e-12)


class Rates(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.rates.append(float(self.model.optimizer.learning_rate))


def test_schedule_by_steps_sets_every_rate_and_ends_the_run():
    rates = Rates()
    schedule = training.Schedule(0.8, lambda progress: 1 - progress, total_steps=5)
    fit(compiled(), [schedule, rates], epochs=100)
    np.testing.assert_allclose(rates.rates, [0.8, 0.64, 0.48, 0.32, 0.16], rtol=1e-6)
    assert schedule.progress == 1 and schedule.remaining == 0


def test_schedule_by_time_ends_the_run(monkeypatch):
    now = iter(np.arange(0, 1000, 0.25))
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(now))
    schedule = training.Schedule(1.0, lambda progress: progress, total_steps=10_000, seconds=6)
    rates = Rates()
    fit(compiled(), [schedule, rates], epochs=10_000)
    assert 3 < len(rates.rates) < 25
    assert rates.rates == sorted(rates.rates) and rates.rates[-1] > 0.7


@pytest.mark.parametrize("limits", [{}, dict(total_steps=0), dict(seconds=-1.0)])
def test_schedule_needs_a_limit(limits):
    with pytest.raises(ValueError, match="positive number of steps or of seconds"):
        training.Schedule(0.1, training.warmup_cosine, **limits)


def test_best_weights_keeps_the_best_and_is_whole(tmp_path, monkeypatch):
    vit = tiny_vit()
    model = compiled(training.training_model(vit, (8, 8)))
    best = training.BestWeights(tmp_path / "best.weights.h5", target=vit)
    best.set_model(model)
    saved = {}
    for epoch, value in enumerate([0.3, 0.5, 0.4]):
        for variable in vit.trainable_variables:
            variable.assign(np.full(variable.shape, epoch))
        best.on_epoch_end(epoch, {"val_accuracy": value})
    assert (best.best, best.best_epoch) == (0.5, 2)
    again = tiny_vit(weights=tmp_path / "best.weights.h5")
    assert all((np.array(v) == 1).all() for v in again.trainable_variables)

    def full_disk(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vit, "save_weights", full_disk)
    saved = (tmp_path / "best.weights.h5").read_bytes()
    with pytest.raises(OSError, match="No space left"):
        best.on_epoch_end(3, {"val_accuracy": 0.9})
    assert (tmp_path / "best.weights.h5").read_bytes() == saved
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="there are loss"):
        best.on_epoch_end(4, {"loss": 1.0})


def test_last_state_has_the_optimizer(tmp_path):
    layers = [augment.RandomFlip(), augment.RandomCrop(1), augment.RandomAffine(0.1, 0.1)]
    model = compiled(training.training_model(tiny_vit(), (8, 8), layers))
    fit(model, [training.LastState(tmp_path / "last.keras")])
    again = keras.models.load_model(tmp_path / "last.keras")
    assert int(again.optimizer.iterations) == 6
    x, y = data()
    np.testing.assert_allclose(again(x), model(x), atol=1e-6)
    for variable, other in zip(model.optimizer.variables, again.optimizer.variables):
        np.testing.assert_allclose(other, variable, atol=1e-7, err_msg=variable.path)


def test_history_and_bar(tmp_path):
    schedule = training.Schedule(0.01, training.warmup_cosine, total_steps=6)
    history = training.History(tmp_path / "history.csv", 20, 8)
    output = io.StringIO()
    bar = training.ProgressBar(schedule, history, Console(file=output, width=120))
    fit(compiled(), [schedule, history, bar], n=20)
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} <= set(rows[0])
    assert [float(row["val_loss"]) for row in rows] == [row["val_loss"] for row in history.rows]
    assert history.train_images == 40 and 0 < history.train_seconds < 60
    lines = [line for line in output.getvalue().splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2 and "(val " in lines[1] and "images/s" in lines[1]


def test_clock():
    assert [training.clock(s) for s in (0.4, 59.6, 187)] == ["0:00", "1:00", "3:07"]


def test_evaluate_by_hand():
    logits = np.array([[3, 2, 1, 0, -1, -2], [0, 9, 1, 2, 3, 4], [9, 8, 7, 6, 5, 4]], "float32")
    result = training.evaluate(logits, np.array([0, 0, 5]), list("abcdef"))
    assert result["accuracy"] == pytest.approx(1 / 3)
    assert result["top5_accuracy"] == pytest.approx(1 / 3)
    assert result["accuracy_per_class"] == {"a": 0.5, "b": None, "c": None, "d": None, "e": None, "f": 0.0}
    assert result["confusion"][0] == [1, 1, 0, 0, 0, 0] and result["confusion"][5][0] == 1
