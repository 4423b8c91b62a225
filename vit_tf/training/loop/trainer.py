"""The run around an engine: schedule, history, checkpoints, interrupts, best weights."""

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np

from vit_tf.files import write_csv
from vit_tf.training.distribution.host_arrays import held_part
from vit_tf.training.distribution.process_group import AgreedError, Alone
from vit_tf.training.loop.checkpoints import (
    Checkpoints,
    from_arrays,
    named,
    restore_rng_state,
    rng_state,
    to_arrays,
)
from vit_tf.training.loop.engines.train_batch import TrainBatchEngine, Trained
from vit_tf.training.loop.interrupts import Interrupted, Interrupts
from vit_tf.training.loop.progress import ProgressBar
from vit_tf.training.schedules import Schedule
from vit_tf.training.tasks import SINGLE_LABEL, SingleLabel

BEST = ("epoch", "val_accuracy", "val_map", "val_loss")  # columns of the history that are kept of the best


def run_start():
    return {"epoch": 0, "step": 0, "seconds": 0.0}


@dataclass
class Progress:
    """The position of a run: with the engine's variables, its whole state.

    Random generators need no state: the order of the data and the numbers drawn for each image follow from
    seed, epoch and position, and the seeds of layers are variables of the model, or on PyTorch in
    `rng_state`.
    """

    epoch: int = 0  # epochs that are complete
    batch: int = 0  # batches done in the present epoch
    step: int = 0  # batches since the start
    seconds: float = 0.0  # since the start, without interruptions
    totals: dict = field(default_factory=dict)  # of the present epoch: sums over its images
    images: int = 0  # images trained on since the start
    train_seconds: float = 0.0  # in training steps, without validation
    rows: list = field(default_factory=list)  # the history, one dict per epoch
    best: dict | None = None  # its epoch, val_loss, val_accuracy and, of some tasks, val_map
    finished: bool = False
    stage: int = 1  # how many schedules were started
    stage_start: dict = field(default_factory=run_start)  # where the present schedule began


@dataclass(eq=False)
class Trainer:
    """Trains to the end of a schedule, and saves the run's state on the way.

    A run can be interrupted and resumed between any two of the engine's steps. Where several processes
    train, each has a trainer and all take the same steps: the main process's clock counts, and its files are
    those of the run.

    Args:
        engine: see `vit_tf.training.loop.engines`.
        schedule: a `Schedule`.
        folder: `pathlib.Path`, the run's folder. `history.csv` and `checkpoints/` are written there.
        label_smoothing: float in [0, 1), that of the loss, so that validation uses the same.
        task: one of `vit_tf.training.tasks.TASKS`.
        monitor: which epoch's weights are the best: by "accuracy" of the validation images (mean average
            precision for multi-label and binary tasks), by their "loss", or the "last".
        patience: int, how many epochs without better weights end the run; None for no such end.
        checkpoint_minutes: float, how often the state is saved within an epoch.
        callbacks: Keras callbacks. Only on_train_begin/end and on_epoch_begin/end are called.
        group: the processes of the run, see `vit_tf.training.distribution.process_group`.
    """

    engine: TrainBatchEngine
    schedule: Schedule
    folder: Path
    _: KW_ONLY
    label_smoothing: float = 0.0
    task: SingleLabel = SINGLE_LABEL
    monitor: str = "accuracy"
    patience: int | None = None
    checkpoint_minutes: float = 10.0
    callbacks: Sequence[keras.callbacks.Callback] = ()
    group: Alone = field(default_factory=Alone)

    def __post_init__(self) -> None:
        callbacks = self.callbacks if self.group.is_main else ()
        self.callback_list = keras.callbacks.CallbackList(callbacks, model=self.engine.training_model)
        self.checkpoints = Checkpoints(self.folder / "checkpoints", group=self.group)
        self.interrupts = Interrupts()
        self.progress = Progress()
        self.best_weights: dict[str, Any] = {}
        self.started = self.saved_at = time.perf_counter()
        self.is_stopping = self.is_checkpoint_due = False
        self.agreed_seconds = 0.0

    @property
    def model(self):
        return self.engine.model

    # -----------------------------------------------------------------------------------------------
    # State
    # -----------------------------------------------------------------------------------------------
    def resume(self) -> bool:
        """Loads the newest state in the run's folder; returns whether there was one.

        Raises:
            ValueError: the state does not fit the model or the optimizer, or every checkpoint is corrupt.
        """
        content = self.checkpoints.load()
        if content is None:
            return False
        arrays, state = content
        known = {item.name for item in fields(Progress)}
        if differing := sorted(known ^ set(state)):
            raise ValueError(
                "the saved state is of another version of vit_tf, which differs in "
                f"{', '.join(differing)}: resume the run with that version, or start a new run"
            )
        from_arrays(self.engine.variables, arrays)
        restore_rng_state(arrays)
        best = named({"best": self.model.variables})
        self.best_weights = {
            name: held_part(best[name], array) for name, array in arrays.items() if name in best
        }
        self.progress = Progress(**state)
        return True

    def begin_stage(self, stage: int) -> None:
        """Starts schedule number `stage` of the run from the end of a finished one; other state continues."""
        progress = self.progress
        progress.stage, progress.finished = stage, False
        progress.stage_start = {key: getattr(progress, key) for key in run_start()}

    def save(self) -> None:
        """Saves the state. If the disk is full, this checkpoint is skipped and training continues."""
        progress = self.progress
        progress.seconds = self.elapsed
        self.saved_at = time.perf_counter()
        try:
            arrays = {**to_arrays(self.engine.variables), **self.best_weights, **rng_state()}
        except ValueError as error:
            raise AgreedError(self.failure_message(f"after step {progress.step} {error}")) from error
        try:
            self.checkpoints.save(progress.step, arrays, asdict(progress))
        except (OSError, AgreedError) as error:
            if not self.has_checkpoint:
                raise  # without any checkpoint the run could not be resumed: fail before the training
            self.bar.print(f"warning: no checkpoint of step {progress.step}, training continues: {error}")

    @property
    def has_checkpoint(self):
        """Whether the run has a checkpoint, whatever the other processes see."""
        return self.group.on_main(lambda: bool(self.checkpoints.paths()))

    def failure_message(self, problem: str) -> str:
        paths = self.checkpoints.paths()
        last = f"the last good state is {paths[0]}" if paths else "no state was saved"
        if not self.group.is_main:
            last = "process 0 names the last good state"
        return f"{problem}: {last}; try a lower --learning-rate, a longer --warmup or --clip-norm 1"

    def load_best(self) -> None:
        """Puts the best weights of all epochs into the model. The run cannot continue afterwards."""
        if self.monitor == "last":
            return self.load_last()
        from_arrays({"best": self.model.variables}, self.best_weights)

    def load_last(self) -> None:
        """Puts the weights of the last epoch into the model, averaged if the optimizer averages."""
        from_arrays({"best": self.model.variables}, self.engine.evaluated_weights())

    # -----------------------------------------------------------------------------------------------
    # Loop
    # -----------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Trains to the end.

        Raises:
            Interrupted: Ctrl-C or SIGTERM came, and the state was saved.
            ValueError: the loss or a weight became NaN or infinite. The last good state stays.
            OSError: the first checkpoint cannot be written.
        """
        if not self.progress.finished:
            self.engine.prepare(self.next_steps)
        self.started = time.perf_counter() - self.progress.seconds
        self.saved_at = time.perf_counter()
        with self.interrupts.listening(), ProgressBar(self.schedule) as self.bar:
            self.agree()
            if not self.has_checkpoint:
                self.save()
            self.write_history()
            self.callback_list.on_train_begin()
            try:
                while not self.progress.finished:
                    self.callback_list.on_epoch_begin(self.progress.epoch)
                    self.train_epoch()
                    self.end_epoch()
                    self.agree_to_go_on()
            except Interrupted:
                self.save()
                raise
            self.callback_list.on_train_end()

    @property
    def elapsed(self):
        """Seconds since the start of the run, without interruptions."""
        return time.perf_counter() - self.started

    def agree(self) -> None:
        """Takes the main process's clock, and a stop that any process has received, for all processes."""
        is_due = time.perf_counter() - self.saved_at > 60 * self.checkpoint_minutes
        numbers = self.group.gather_numbers(
            np.array([self.elapsed, is_due, self.interrupts.requested], float)
        )
        self.agreed_seconds, is_due = numbers[0, :2].tolist()
        self.is_checkpoint_due, self.is_stopping = bool(is_due), bool(numbers[:, 2].any())

    @property
    def stage_seconds(self):
        return self.agreed_seconds - self.progress.stage_start["seconds"]

    @property
    def stage_epochs(self):
        """How many epochs of the present schedule are done, a float."""
        return (self.progress.step - self.progress.stage_start["step"]) / self.engine.steps_per_epoch

    @property
    def fraction(self):
        """How much of the present schedule is over, in [0, 1]."""
        return self.schedule.progress(self.stage_epochs, self.stage_seconds)

    def next_steps(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns `Schedule.steps` of the next `count` steps."""
        per_epoch = self.engine.steps_per_epoch
        return self.schedule.steps(self.stage_epochs, self.stage_seconds, count, per_epoch)

    def train_epoch(self) -> None:
        """Trains the rest of an epoch: the engine yields after each batch, or once for the whole epoch."""
        progress = self.progress
        if progress.batch and self.fraction >= 1:  # the run was interrupted between its last step and here
            return
        with closing(self.engine.train(progress.epoch, progress.batch, self.next_steps)) as results:
            started = time.perf_counter()
            for trained in results:
                self.count(trained, time.perf_counter() - started)
                self.agree()
                self.bar.update(progress, self.fraction, self.stage_seconds)
                self.raise_if_stopping()
                if self.fraction >= 1:
                    return
                if self.is_checkpoint_due:
                    self.save()
                started = time.perf_counter()

    def count(self, trained: Trained, seconds: float) -> None:
        """Adds what the engine has trained to the progress."""
        progress = self.progress
        progress.step += trained.batches
        progress.batch += trained.batches
        progress.images += trained.images
        progress.train_seconds += seconds
        if not all(math.isfinite(value) for value in trained.logs.values()):
            step = f"step {progress.step}" if trained.batches == 1 else f"the steps until {progress.step}"
            place = f"{step} (batch {progress.batch} of epoch {progress.epoch + 1})"
            raise AgreedError(self.failure_message(f"the loss was {trained.logs['loss']} at {place}"))
        sums = {name: value * trained.images for name, value in trained.logs.items()}
        for name, value in {"images": trained.images, "seconds": seconds, **sums}.items():
            progress.totals[name] = progress.totals.get(name, 0) + value

    def raise_if_stopping(self) -> None:
        if self.is_stopping:
            raise Interrupted

    def agree_to_go_on(self) -> None:
        self.agree()
        self.raise_if_stopping()

    def end_epoch(self) -> None:
        """Validates, writes the history, keeps the weights if they are the best, and saves."""
        progress = self.progress
        logits, targets = self.engine.validate(after_batch=self.agree_to_go_on)
        self.agree()
        # Another machine may round in another way, and then take other weights as the best.
        row = self.group.share(self.history_row(logits, targets))
        if self.is_best(row):
            progress.best = {name: row[name] for name in row if name in BEST}
            self.best_weights = {} if self.monitor == "last" else self.engine.evaluated_weights()
        progress.rows.append(row)
        progress.epoch += 1
        waited = progress.epoch - max((progress.best or row)["epoch"], progress.stage_start["epoch"])
        progress.finished = self.fraction >= 1 or (self.patience is not None and waited >= self.patience)
        batches, progress.batch, progress.totals = progress.batch, 0, {}
        if self.engine.saves_every_epoch or progress.finished or self.is_checkpoint_due:
            self.save()
        self.write_history()
        self.bar.end_epoch(row, batches, self.engine.steps_per_epoch)
        self.callback_list.on_epoch_end(row["epoch"] - 1, row)

    def is_best(self, row: dict[str, Any]) -> bool:
        best = self.progress.best
        if best is None or self.monitor == "last":
            return True
        if self.monitor == "loss":
            return row["val_loss"] < best["val_loss"]
        return row[self.task.score] > best[self.task.score]

    def history_row(self, logits: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
        progress = self.progress
        images = progress.totals["images"]
        return {
            "epoch": progress.epoch + 1,
            "stage": progress.stage,
            "step": progress.step,
            "seconds": round(self.elapsed, 2),
            "images_per_second": round(images / progress.totals["seconds"], 1),
            "learning_rate": float(keras.ops.convert_to_numpy(self.engine.optimizer.learning_rate)),
            "loss": progress.totals["loss"] / images,
            "accuracy": progress.totals["accuracy"] / images,
            **self.task.validate(logits, targets, self.label_smoothing),
        }

    def write_history(self) -> None:
        """Writes `history.csv` from the rows of the state: without gaps and duplicates after any crash."""
        rows = self.progress.rows
        if not rows or not self.group.is_main:
            return
        try:
            write_csv(self.folder / "history.csv", list(rows[0]), [list(row.values()) for row in rows])
        except OSError as error:
            self.bar.print(f"warning: history.csv is not up to date, training continues: {error}")
