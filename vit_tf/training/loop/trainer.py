"""The training loop, which can be left and taken up again between any two batches."""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields

import keras

from vit_tf.files import write_csv
from vit_tf.training.loop.checkpoints import Checkpoints, from_arrays, to_arrays
from vit_tf.training.loop.generators import restore_rng_state, rng_state
from vit_tf.training.loop.interrupts import Interrupted, Interrupts
from vit_tf.training.loop.progress import ProgressBar
from vit_tf.training.metrics import predict
from vit_tf.training.optimizers import averaged_weights
from vit_tf.training.tasks import SINGLE_LABEL

BEST = ("epoch", "val_accuracy", "val_map", "val_loss")  # what is kept of the best row of the history


@dataclass
class Progress:
    """How far a run is: with the variables of model and optimizer, its whole state.

    There is no state of random generators: the order of the data and what is drawn for each image
    follow from seed, epoch and place, and what layers draw is among the model's variables, or on PyTorch
    in `rng_state`.
    """

    epoch: int = 0  # complete ones
    batch: int = 0  # done of the epoch under way
    step: int = 0  # batches since the start
    seconds: float = 0.0  # since the start, interruptions left out
    totals: dict = field(default_factory=dict)  # of the epoch under way: sums over its images
    images: int = 0  # trained on since the start
    train_seconds: float = 0.0  # in training steps, validation left out
    rows: list = field(default_factory=list)  # the history, a dict an epoch
    best: dict | None = None  # its epoch, val_loss, val_accuracy and perhaps val_map
    finished: bool = False


@dataclass(frozen=True)
class Schedule:
    """When a run ends, and its learning rate until then.

    The share of a run that is over is that of its steps or of its time, whichever is further: so a
    schedule fits itself to the machine.

    Args:
        learning_rate: float, the peak.
        shape: function from the share in [0, 1] and the epoch, a float, to a factor: see `make_schedule`.
        epochs: int, or None for no limit.
        seconds: float, or None for no limit; validation counts, too.

    Raises:
        ValueError: there is no limit, or one is not positive.
    """

    learning_rate: float
    shape: Callable[[float, float], float]
    epochs: int | None = None
    seconds: float | None = None

    def __post_init__(self):
        limits = [limit for limit in (self.epochs, self.seconds) if limit is not None]
        if not limits or min(limits) <= 0:
            raise ValueError(
                "a schedule needs a positive number of epochs or of seconds, got "
                f"epochs={self.epochs}, seconds={self.seconds}"
            )

    def share(self, epochs, seconds):
        """Returns how much of the run is over after so many epochs (a float) and seconds, in [0, 1]."""
        by_epochs = epochs / self.epochs if self.epochs else 0.0
        by_time = seconds / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_epochs, by_time))

    def rate(self, share, epochs):
        return self.learning_rate * self.shape(share, epochs)


class Trainer:
    """Trains a compiled model to the end of its schedule, and saves the run's state on the way.

    Args:
        model: a compiled `keras.Model` from images to logits, with the metric "accuracy".
        stages: models that train in turn for equal shares of the run. They are compiled as `model` is, which
            may be one of them, and share its variables and its optimizer. Empty for `model` alone.
        network: the model inside it whose weights are wanted in the end; may be `model` itself.
        train: `vit_tf.data.DataLoader` to learn from.
        validation: `vit_tf.data.DataLoader` that does not shuffle.
        schedule: a `Schedule`.
        folder: the run's folder. `history.csv` and `checkpoints/` are written there.
        label_smoothing: float, that of the loss, so that validation has the same.
        class_weights: float array (k,), how much an image of each class counts; None for all alike.
        task: one of `vit_tf.training.tasks.TASKS`.
        monitor: which weights are the best: "accuracy" of the validation images, in whose place multi-label
            and binary tasks have mean average precision, or their "loss".
        patience: int, how many epochs without better weights end the run; None for no end.
        checkpoint_minutes: float, how often the state is saved within an epoch.
        callbacks: Keras callbacks; they hear of the beginning and the end of training and of epochs.
    """

    def __init__(
        self,
        model,
        network,
        train,
        validation,
        schedule,
        folder,
        *,
        stages=(),
        label_smoothing=0.0,
        class_weights=None,
        task=SINGLE_LABEL,
        monitor="accuracy",
        patience=None,
        checkpoint_minutes=10.0,
        callbacks=(),
    ):
        self.model = model
        self.stages = list(stages) or [model]
        self.network = network
        self.train = train
        self.validation = validation
        self.schedule = schedule
        self.folder = folder
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.task = task
        self.monitor = monitor
        self.patience = patience
        self.checkpoint_seconds = 60 * checkpoint_minutes
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=model)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.interrupts = Interrupts()
        self.progress = Progress()
        self.best_weights = {}
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)

    # -----------------------------------------------------------------------------------------------
    # State
    # -----------------------------------------------------------------------------------------------
    @property
    def variables(self):
        return {"model": self.model.variables, "optimizer": self.model.optimizer.variables}

    def resume(self):
        """Takes up the newest state in the run's folder; returns whether there was one.

        Raises:
            ValueError: the state does not fit the model or the optimizer, or no checkpoint is whole.
        """
        found = self.checkpoints.load()
        if found is None:
            return False
        arrays, state = found
        known = {item.name for item in fields(Progress)}
        if differing := sorted(known ^ set(state)):
            raise ValueError(
                f"the saved state is of another version of vit_tf, it differs in {', '.join(differing)}: "
                "go on with that version, or start anew"
            )
        from_arrays(self.variables, arrays)
        restore_rng_state(arrays)
        self.best_weights = {name: array for name, array in arrays.items() if name.startswith("best/")}
        self.progress = Progress(**state)
        return True

    def save(self):
        """Saves the state. A disk that is full costs this checkpoint, and not the run."""
        progress = self.progress
        progress.seconds = self.elapsed
        self.saved_at = time.perf_counter()
        try:
            arrays = {**to_arrays(self.variables), **self.best_weights, **rng_state()}
        except ValueError as error:
            raise ValueError(self.failure_message(f"after step {progress.step} {error}")) from error
        try:
            self.checkpoints.save(progress.step, arrays, asdict(progress))
        except OSError as error:
            if not self.checkpoints.paths():
                raise  # nothing could be taken up again: better to know it before the training
            self.bar.print(f"warning: no checkpoint of step {progress.step}, the run goes on: {error}")

    def failure_message(self, problem):
        paths = self.checkpoints.paths()
        last = f"the last good state is {paths[0]}" if paths else "no state was saved"
        return f"{problem}: {last}; try a lower --learning-rate, a longer --warmup or --clip-norm 1"

    def load_best(self):
        """Puts the best weights of all epochs into `network`."""
        from_arrays({"best": self.network.variables}, self.best_weights)

    # -----------------------------------------------------------------------------------------------
    # Loop
    # -----------------------------------------------------------------------------------------------
    def run(self):
        """Trains to the end.

        Raises:
            Interrupted: Ctrl-C or SIGTERM came, and the state was saved.
            ValueError: the loss or a weight became NaN or infinite. The last good state stays.
            OSError: the first checkpoint cannot be written.
        """
        self.started = time.perf_counter() - self.progress.seconds
        self.saved_at = time.perf_counter()
        with self.interrupts.listening(), ProgressBar(self.schedule) as self.bar:
            if not self.checkpoints.paths():
                self.save()
            self.write_history()
            self.callbacks.on_train_begin()
            try:
                while not self.progress.finished:
                    self.callbacks.on_epoch_begin(self.progress.epoch)
                    self.train_epoch()
                    self.end_epoch()
                    self.raise_if_interrupted()
            except Interrupted:
                self.save()
                raise
            self.callbacks.on_train_end()

    @property
    def elapsed(self):
        return time.perf_counter() - self.started

    @property
    def share(self):
        """How much of the run is over, in [0, 1]."""
        return self.schedule.share(self.epochs, self.elapsed)

    @property
    def epochs(self):
        """How many epochs were done, a float."""
        return self.progress.step / len(self.train)

    def train_epoch(self):
        progress = self.progress
        with closing(self.train.epoch(progress.epoch, progress.batch)) as batches:
            started = time.perf_counter()
            for images, labels in batches:
                self.train_step(images, labels)
                self.count_seconds(time.perf_counter() - started)
                self.bar.update(progress, self.share, self.elapsed)
                self.raise_if_interrupted()
                if self.share >= 1:
                    return
                if time.perf_counter() - self.saved_at > self.checkpoint_seconds:
                    self.save()
                started = time.perf_counter()

    def count_seconds(self, seconds):
        self.progress.train_seconds += seconds
        self.progress.totals["seconds"] = self.progress.totals.get("seconds", 0.0) + seconds

    def train_step(self, images, labels):
        progress = self.progress
        middle = self.epochs + 0.5 / len(self.train)  # of this step: at its ends the rate may be 0
        share = self.schedule.share(middle, self.elapsed)
        self.model.optimizer.learning_rate.assign(self.schedule.rate(share, middle))
        model = self.stages[min(int(share * len(self.stages)), len(self.stages) - 1)]
        weights = None if self.class_weights is None else labels @ self.class_weights
        logs = model.train_on_batch(images, labels, sample_weight=weights, return_dict=True)
        progress.step += 1
        progress.batch += 1
        progress.images += len(images)
        if not all(math.isfinite(value) for value in logs.values()):
            place = f"step {progress.step} (batch {progress.batch} of epoch {progress.epoch + 1})"
            raise ValueError(self.failure_message(f"the loss was {logs['loss']} at {place}"))
        for name, value in {"images": 1, **logs}.items():
            progress.totals[name] = progress.totals.get(name, 0) + float(value) * len(images)

    def raise_if_interrupted(self):
        if self.interrupts.requested:
            raise Interrupted

    def end_epoch(self):
        """Validates, writes the history, remembers the weights if they are the best, and saves."""
        progress = self.progress
        with averaged_weights(self.model, self.model.optimizer):
            logits, targets = predict(self.model, self.validation, after_batch=self.raise_if_interrupted)
            row = self.history_row(logits, targets)
            if self.is_best(row):
                progress.best = {name: row[name] for name in row if name in BEST}
                self.best_weights = to_arrays({"best": self.network.variables})
        progress.rows.append(row)
        progress.epoch += 1
        waited = progress.epoch - progress.best["epoch"]
        progress.finished = self.share >= 1 or (self.patience is not None and waited >= self.patience)
        progress.batch, progress.totals = 0, {}
        self.save()
        self.write_history()
        self.bar.end_epoch(row)
        self.callbacks.on_epoch_end(row["epoch"] - 1, row)

    def is_best(self, row):
        best = self.progress.best
        if best is None:
            return True
        if self.monitor == "loss":
            return row["val_loss"] < best["val_loss"]
        return row[self.task.score] > best[self.task.score]

    def history_row(self, logits, targets):
        progress = self.progress
        images = progress.totals["images"]
        return {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "seconds": round(self.elapsed, 2),
            "images_per_second": round(images / progress.totals["seconds"], 1),
            "learning_rate": float(self.model.optimizer.learning_rate),
            "loss": progress.totals["loss"] / images,
            "accuracy": progress.totals["accuracy"] / images,
            **self.task.validate(logits, targets, self.label_smoothing),
        }

    def write_history(self):
        """Writes `history.csv` from the rows of the state: no gaps and no doubles, whatever happened."""
        rows = self.progress.rows
        if not rows:
            return
        try:
            write_csv(self.folder / "history.csv", list(rows[0]), [list(row.values()) for row in rows])
        except OSError as error:
            self.bar.print(f"warning: history.csv is not up to date, the run goes on: {error}")
