import csv
import io
import os
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
from rich.console import Console
from support.paths import ROOT

from vit_tf import build_vit
from vit_tf.data import DataLoader
from vit_tf.data.augment import batch as augment
from vit_tf.training import Schedule, make_optimizer, make_schedule, make_training_model
from vit_tf.training.loop import interrupts
from vit_tf.training.loop import progress as progress_bar
from vit_tf.training.loop.checkpoints import to_arrays
from vit_tf.training.loop.engines.train_batch import TrainBatchEngine
from vit_tf.training.loop.interrupts import Interrupted
from vit_tf.training.loop.trainer import Trainer

pytestmark = pytest.mark.every_backend

K = 3


def tiny_vit():
    return build_vit(
        "vit_cifar10",
        image_size=8,
        patch_size=4,
        hidden_dim=8,
        num_layers=1,
        num_heads=2,
        mlp_dim=8,
        num_classes=K,
        dropout_rate=0.2,
    )


def data(n=20, batch_size=8, shuffle=True, seed=0):
    generator = np.random.default_rng(0)
    labels = np.arange(n) % K
    images = generator.normal(labels[:, None, None, None], 1.0, (n, 8, 8, 3)).astype("float32")
    return DataLoader(images, labels, K, batch_size, shuffle=shuffle, seed=seed)


def make(
    folder,
    epochs=2,
    seconds=None,
    train=None,
    clip_norm=None,
    curve=None,
    class_weights=None,
    compiled=False,
    **options,
):
    """A trainer with all that has a state: dropout, augmentation, averages, accumulated gradients.

    Tracing a step on TensorFlow takes longer than the steps of a run: `compiled` is for exact resume.
    """
    keras.utils.set_random_seed(1)
    vit = tiny_vit()
    model = make_training_model(vit, (8, 8), [augment.RandomFlip(), augment.RandomCrop(1)])
    model.compile(
        make_optimizer(model, accumulation_steps=2, ema=0.5, clip_norm=clip_norm),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        run_eagerly=keras.backend.backend() == "tensorflow" and not compiled,
    )
    schedule = Schedule(1e-2, curve or make_schedule("cosine"), epochs, seconds)
    engine = TrainBatchEngine(model, vit, train or data(), data(shuffle=False), class_weights=class_weights)
    return Trainer(engine, schedule, folder, **{"checkpoint_minutes": 1e9, **options})


def state(trainer):
    return to_arrays(trainer.engine.variables)


def untimed(rows):
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def interrupt_after(trainer, step):
    """Asks the trainer to stop when it has done `step` steps, as Ctrl-C does."""
    original = trainer.count

    def count(*trained):
        original(*trained)
        trainer.interrupts.requested = trainer.progress.step == step

    trainer.count = count


def run_whole(folder, compiled):
    """A run that nothing disturbs: 2 epochs of 3 batches."""
    trainer = make(folder, compiled=compiled)
    trainer.run()
    return trainer, state(trainer), trainer.progress


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run_whole(tmp_path_factory.mktemp("whole"), compiled=False)


@pytest.fixture(scope="module")
def compiled_whole(tmp_path_factory):
    return run_whole(tmp_path_factory.mktemp("whole"), compiled=True)


@pytest.mark.fast_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "step, compiled",
    [
        *((1, False), (3, False), (4, False)),  # within an epoch, before a validation, in the next epoch
        # Compiled on TensorFlow: as the interrupted run in tests/commands/test_finetune_multi_label.py.
        pytest.param(4, True, marks=pytest.mark.exhaustive),
        pytest.param(1, True, marks=pytest.mark.exhaustive),
    ],
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(request, tmp_path, step, compiled):
    trainer, expected, progress = request.getfixturevalue("compiled_whole" if compiled else "whole")
    first = make(tmp_path, compiled=compiled)
    interrupt_after(first, step)
    with pytest.raises(Interrupted):
        first.run()
    assert first.progress.step == step
    second = make(tmp_path, compiled=compiled)
    for variable in second.model.trainable_variables:
        variable.assign(np.random.default_rng(3).normal(size=variable.shape))  # the state has it all
    assert second.resume() and second.progress.step == step
    second.run()
    for name, array in state(second).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    assert untimed(second.progress.rows) == untimed(progress.rows)
    assert second.progress.best == progress.best
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in progress.rows]
    for name in trainer.best_weights:
        np.testing.assert_array_equal(second.best_weights[name], trainer.best_weights[name])


@pytest.mark.slow
def test_history_and_checkpoints_of_a_whole_run(whole):
    trainer, _, progress = whole
    assert progress.finished and (progress.epoch, progress.step, progress.batch) == (2, 6, 0)
    assert progress.images == 40 and progress.train_seconds > 0
    row = progress.rows[-1]
    assert list(row) == [
        *("epoch", "stage", "step", "seconds", "images_per_second", "learning_rate"),
        *("loss", "accuracy", "val_loss", "val_accuracy"),
    ]
    steps = [int(path.name.split("-")[1]) for path in trainer.checkpoints.paths()]
    assert steps == [6, 3]  # the last two
    again = make(trainer.folder)
    assert again.resume()
    again.run()  # nothing is left to do
    assert again.progress.step == 6


@pytest.mark.slow
def test_the_best_weights_are_averaged_ones_of_the_best_epoch(whole):
    """Validation sees the averages; loading the best gives the accuracy that was reported."""
    trainer, _, progress = whole
    trainer.load_best()
    images, labels = trainer.engine.validation.images, trainer.engine.validation.labels
    accuracy = (trainer.model.predict(images, verbose=0).argmax(-1) == labels).mean()
    assert (
        accuracy == progress.best["val_accuracy"] == progress.rows[progress.best["epoch"] - 1]["val_accuracy"]
    )


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_every_rate_is_the_schedules(tmp_path):
    trainer = make(tmp_path, curve=lambda progress, epoch: 1 - progress)
    rates, original = [], trainer.engine.training_model.train_on_batch

    def train_on_batch(*args, **kwargs):
        rates.append(float(trainer.engine.training_model.optimizer.learning_rate))
        return original(*args, **kwargs)

    trainer.engine.training_model.train_on_batch = train_on_batch
    trainer.run()
    np.testing.assert_allclose(rates, 1e-2 * (1 - (np.arange(6) + 0.5) / 6), rtol=1e-6)


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_time_ends_a_run_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    now = iter(np.arange(0, 10000, 0.25))
    monkeypatch.setattr("vit_tf.training.loop.trainer.time.perf_counter", lambda: next(now))
    trainer = make(tmp_path, epochs=None, seconds=12)
    trainer.run()
    assert trainer.progress.finished and 1 < trainer.progress.step < 12
    assert len(trainer.progress.rows) == -(-trainer.progress.step // 3)


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_states_are_saved_within_an_epoch(tmp_path):
    trainer = make(tmp_path, epochs=1, checkpoint_minutes=0)
    steps, original = [], trainer.checkpoints.save
    trainer.checkpoints.save = lambda step, *rest: (steps.append(step), original(step, *rest))
    trainer.run()
    assert steps == [0, 1, 2, 3]


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_patience_ends_a_run(tmp_path):
    trainer = make(tmp_path, epochs=50, patience=2)
    values = iter([0.2, 0.5, 0.5, 0.4, 0.9])
    original = trainer.history_row
    trainer.history_row = lambda *args: {**original(*args), "val_accuracy": next(values)}
    trainer.run()
    assert len(trainer.progress.rows) == 4
    assert (trainer.progress.best["epoch"], trainer.progress.best["val_accuracy"]) == (2, 0.5)


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_the_last_weights_may_be_the_best(tmp_path):
    trainer = make(tmp_path, epochs=3, monitor="last")
    trainer.run()
    assert trainer.progress.best["epoch"] == 3 and not trainer.best_weights
    logits, targets = trainer.engine.validate()
    trainer.load_best()
    np.testing.assert_array_equal(trainer.engine.predict(trainer.engine.validation)[0], logits)
    accuracy = (logits.argmax(-1) == targets.argmax(-1)).mean()
    assert accuracy == trainer.progress.rows[-1]["val_accuracy"]


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_a_finished_run_is_trained_further_with_a_new_schedule(whole, tmp_path):
    """All state continues; only the schedule starts anew, also after an interruption."""
    first = make(tmp_path)
    first.run()
    resumed = make(tmp_path, epochs=4)
    assert resumed.resume()
    resumed.begin_stage(2)
    rates = []
    original = resumed.count

    def count(*trained):
        original(*trained)
        rates.append(float(resumed.engine.optimizer.learning_rate))
        resumed.interrupts.requested = resumed.progress.step == 8

    resumed.count = count
    with pytest.raises(Interrupted):
        resumed.run()
    again = make(tmp_path, epochs=4)
    assert again.resume() and (again.progress.stage, again.progress.epoch) == (2, 2)
    again.run()
    curve = make_schedule("cosine")
    np.testing.assert_allclose(rates, [1e-2 * curve((i + 0.5) / 12, 0) for i in range(2)], rtol=1e-6)
    rows = again.progress.rows
    assert [(row["epoch"], row["stage"]) for row in rows] == [(i + 1, 1 + (i > 1)) for i in range(6)]
    assert untimed(rows[:2]) == untimed(whole[2].rows) and again.progress.step == 18
    assert int(again.engine.optimizer.iterations) == 9  # two batches per step


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_the_loss_may_say_which_weights_are_the_best(tmp_path):
    trainer = make(tmp_path, epochs=3, monitor="loss")
    losses = iter([0.7, 0.5, 0.6])
    original = trainer.history_row
    trainer.history_row = lambda *args: {**original(*args), "val_loss": next(losses)}
    trainer.run()
    assert (trainer.progress.best["epoch"], trainer.progress.best["val_loss"]) == (2, 0.5)


@pytest.mark.slow
def test_class_weights_weigh_the_gradient(tmp_path):
    """An image of a class of weight 0 teaches nothing: only the bias of the decay-free head would move."""
    trainer = make(tmp_path, class_weights=np.zeros(K, "float32"))
    before = state(trainer)
    trainer.run()
    after = state(trainer)
    unmoved = [
        name for name in after if name.startswith("model") and name.endswith(("bias", "beta", "gamma"))
    ]
    assert unmoved
    for name in unmoved:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert trainer.progress.rows[0]["loss"] == 0


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_a_nan_stops_the_run_with_the_last_good_state(tmp_path):
    batches = data()
    trainer = make(tmp_path, train=batches, checkpoint_minutes=0)
    original = batches.epoch

    def poisoned(epoch, start):
        for i, (images, labels) in enumerate(original(epoch, start)):
            yield images, labels * np.float32(np.nan if (epoch, start + i) == (1, 1) else 1)

    batches.epoch = poisoned
    with pytest.raises(
        ValueError, match=r"nan at step 5 \(batch 2 of epoch 2\): the last good state is .*00000004"
    ):
        trainer.run()
    again = make(tmp_path)
    assert again.resume() and again.progress.step == 4
    assert all(np.isfinite(array).all() for array in state(again).values())


@pytest.mark.tensorflow_only
def test_weights_that_overflow_are_not_saved(tmp_path):
    trainer = make(tmp_path)
    trainer.model.get_layer("head").kernel.assign(np.full((8, K), np.inf))
    with pytest.raises(ValueError, match="after step 0 head/kernel has NaN.*no state was saved"):
        trainer.run()


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_a_full_disk_costs_a_checkpoint_and_not_the_run(tmp_path, capsys):
    trainer = make(tmp_path, epochs=1)
    original = trainer.checkpoints.save

    def save(step, *rest):
        if step:
            raise OSError(28, "No space left on device")
        original(step, *rest)

    trainer.checkpoints.save = save
    trainer.run()
    assert trainer.progress.finished
    assert (
        "warning: no checkpoint of step 3, training continues: [Errno 28] No space" in capsys.readouterr().out
    )
    fresh = make(tmp_path / "new")
    fresh.checkpoints.save = lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system"))
    with pytest.raises(OSError, match="Read-only"):  # before the training there is nothing to lose
        fresh.run()
    assert fresh.progress.step == 0


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_a_request_after_the_last_validation_is_heard(tmp_path):
    trainer = make(tmp_path, epochs=1)
    original = trainer.end_epoch

    def end_epoch():
        original()
        trainer.interrupts.requested = True

    trainer.end_epoch = end_epoch
    with pytest.raises(Interrupted):
        trainer.run()
    again = make(tmp_path, epochs=1)
    assert again.resume() and again.progress.finished


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_a_request_in_the_last_validation_adds_no_step(tmp_path):
    """Time has ended the run within an epoch, and the signal comes before the epoch's row is written."""
    trainer = make(tmp_path, epochs=None, seconds=0.01)
    original = trainer.engine.validate

    def validate(after_batch):
        trainer.interrupts.requested = True
        return original(after_batch=after_batch)

    trainer.engine.validate = validate
    with pytest.raises(Interrupted):
        trainer.run()
    assert trainer.progress.step == 1
    again = make(tmp_path, epochs=None, seconds=0.01)
    assert again.resume() and not again.progress.finished
    again.run()
    assert again.progress.finished and again.progress.step == 1 and len(again.progress.rows) == 1


@pytest.mark.slow
def test_a_state_of_another_version_is_refused(whole, monkeypatch):
    other = make(whole[0].folder)
    arrays, state = other.checkpoints.load()
    monkeypatch.setattr(other.checkpoints, "load", lambda: (arrays, {**state, "colour": 1}))
    with pytest.raises(ValueError, match="another version of vit_tf, which differs in colour"):
        other.resume()


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_a_state_of_another_model_is_refused(whole):
    trainer, _, _ = whole
    other = make(trainer.folder, clip_norm=None)
    other.engine.training_model.optimizer = make_optimizer(
        other.engine.training_model, "sgd", accumulation_steps=2
    )
    other.engine.training_model.optimizer.build(other.engine.training_model.trainable_variables)
    before = state(other)
    with pytest.raises(ValueError, match="does not fit this run.*optimizer/0000.*Resume with the code"):
        other.resume()
    for name, array in state(other).items():
        np.testing.assert_array_equal(array, before[name])


# ---------------------------------------------------------------------------------------------------
# Signals
# ---------------------------------------------------------------------------------------------------
@pytest.fixture
def hangup_ends():
    """Signals as in a terminal: under nohup the tests would start with SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.tensorflow_only
def test_a_signal_is_a_request_and_handlers_come_back(hangup_ends):
    before = list(map(signal.getsignal, interrupts.SIGNALS))
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} == set(interrupts.SIGNALS)
    for number in interrupts.SIGNALS:
        listener = interrupts.Interrupts()
        with listener.listening():
            os.kill(os.getpid(), number)
            for _ in range(100):
                if listener.requested:
                    break
                time.sleep(0.01)
        assert listener.requested
    assert list(map(signal.getsignal, interrupts.SIGNALS)) == before


@pytest.mark.tensorflow_only
def test_nohup_is_obeyed():
    listener, before = interrupts.Interrupts(), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listener.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
        assert not listener.requested and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_the_second_signal_leaves_at_once():
    """Even while Python runs nothing of its own, as during a long training step."""
    script = (
        "import ctypes, sys, types\n"
        "for name in ('vit_tf', 'vit_tf.training'):\n"  # without what these packages import
        "    sys.modules[name] = types.ModuleType(name)\n"
        "    sys.modules[name].__path__ = ['/'.join([sys.argv[1], *name.split('.')])]\n"
        "from vit_tf.training.loop.interrupts import Interrupts\n"
        "sleep = ctypes.CDLL(None).sleep\n"
        "with Interrupts().listening():\n"
        "    print('ready', flush=True)\n"
        "    while True: sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, ROOT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert "a second signal exits immediately" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.tensorflow_only
def test_elsewhere_than_in_the_main_thread_nothing_is_heard():
    listener, done = interrupts.Interrupts(), []

    def work():
        with listener.listening():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


# ---------------------------------------------------------------------------------------------------
# Schedule and bar
# ---------------------------------------------------------------------------------------------------
@pytest.mark.tensorflow_only
def test_schedule_takes_what_is_further():
    schedule = Schedule(2.0, lambda progress, epoch: progress, epochs=4, seconds=100)
    assert schedule.progress(1, 10) == 0.25 and schedule.progress(1, 50) == 0.5
    assert schedule.progress(9, 0) == 1
    assert schedule.rate(0.25, 1) == 0.5


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("limits", [{}, dict(epochs=0), dict(seconds=-1.0)])
def test_schedule_needs_a_limit(limits):
    with pytest.raises(ValueError, match="positive number of epochs or of seconds"):
        Schedule(0.1, make_schedule("cosine"), **limits)


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_bar(whole):
    _, _, progress = whole
    output = io.StringIO()
    with progress_bar.ProgressBar(
        None, Console(file=output, width=120, force_terminal=True, highlight=False)
    ) as bar:
        running = type(progress)(epoch=1, totals={"images": 10, "loss": 15.0, "accuracy": 5.0})
        bar.update(running, fraction=0.25, elapsed=30)
        bar.bar.refresh()
        bar.end_epoch(progress.rows[0], 12, 12)
        bar.end_epoch(progress.rows[0], 7, 12)  # cut short by the end of the schedule
    text = output.getvalue()
    assert "loss 1.500" in text and "accuracy 50.0%" in text and "ETA 1:30" in text and "25 %" in text
    assert "epoch   1  " in text and "epoch   1 (7 of 12 batches)  " in text
    assert "(val " in text and "images/s" in text


@pytest.mark.tensorflow_only
def test_clock():
    seconds = (0.4, 59.6, 187, 3661)
    assert [progress_bar.format_duration(s) for s in seconds] == ["0:00", "1:00", "3:07", "1:01:01"]
