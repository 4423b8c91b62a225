"""What a training run is made of: the model with its augmentation, the optimizer, the callbacks."""

import csv
import math
import time

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from vit_tf import augment
from vit_tf.files import atomic_path


def training_model(model, image_size, augmentation=()):
    """Puts what happens to a picture in training before `model`; the weights are shared.

    Args:
        model: a `keras.Model` over images (b, h, w, c).
        image_size: (height, width) in pixels of the images that will come. They are resized where
            `model` takes another size.
        augmentation: layers that are active in training alone.

    Returns:
        A functional `keras.Model` over images `(b, *image_size, c)` with `model`'s outputs.
    """
    *model_size, channels = model.input_shape[1:]
    images = keras.Input((*image_size, channels), name="images")
    x = images
    if tuple(image_size) != tuple(model_size):
        x = augment.Resize(model_size, name="resize")(x)
    for layer in augmentation:
        x = layer(x)
    return keras.Model(images, model(x), name=f"{model.name}_training")


def adamw(model, learning_rate, weight_decay, **kwargs):
    """Returns AdamW for `model`, decaying kernels only: no biases, norms, tokens or positions.

    Args:
        model: a built `keras.Model`.
        learning_rate: float, or a Keras schedule.
        weight_decay: float; each step takes learning_rate * weight_decay of a kernel from it.
        **kwargs: any other argument of `keras.optimizers.AdamW`.

    Reference: Loshchilov and Hutter, "Decoupled Weight Decay Regularization"
    (https://arxiv.org/abs/1711.05101).
    """
    optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay, **kwargs)
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if v.name != "kernel"])
    return optimizer


def warmup_cosine(progress, warmup=0.1):
    """Returns the factor on the peak learning rate at `progress` in [0, 1] of a run.

    It rises linearly over the share `warmup` of the run, then falls to 0 on half a cosine.
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1 - warmup))


class Schedule(keras.callbacks.Callback):
    """Sets the learning rate before every step, and ends the run when its time is over.

    The progress of a run is the share of its steps or of its time, whichever is further: so a
    schedule fits itself to the machine.

    Args:
        learning_rate: float, the peak.
        shape: function from progress in [0, 1] to a factor, such as `warmup_cosine`.
        total_steps: int, or None for no limit.
        seconds: float, or None for no limit; validation counts, too.

    Raises:
        ValueError: neither limit is given, or one is not positive.
    """

    def __init__(self, learning_rate, shape, total_steps=None, seconds=None):
        super().__init__()
        limits = [limit for limit in (total_steps, seconds) if limit is not None]
        if not limits or min(limits) <= 0:
            raise ValueError(
                "a schedule needs a positive number of steps or of seconds, got "
                f"total_steps={total_steps}, seconds={seconds}"
            )
        self.learning_rate = learning_rate
        self.shape = shape
        self.total_steps = total_steps
        self.seconds = seconds
        self.step = 0

    def on_train_begin(self, logs=None):
        self.started = time.perf_counter()

    @property
    def elapsed(self):
        return time.perf_counter() - self.started

    @property
    def progress(self):
        by_steps = self.step / self.total_steps if self.total_steps else 0.0
        by_time = self.elapsed / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    @property
    def remaining(self):
        """Seconds to the end at the speed so far, None at the start."""
        return self.elapsed * (1 / self.progress - 1) if self.step and self.progress else None

    def on_train_batch_begin(self, batch, logs=None):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # Keras keeps the variables apart while JAX trains
        self.model.optimizer.learning_rate.assign(self.learning_rate * self.shape(self.progress))

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.progress >= 1:
            self.model.stop_training = True


class BestWeights(keras.callbacks.Callback):
    """Saves the weights of `target` whenever `monitor` is higher than ever, whole or not at all.

    Args:
        path: ends in `.weights.h5`.
        target: the model whose weights to save. Defaults to the one in training.
        monitor: name of a metric of which more is better.
    """

    def __init__(self, path, target=None, monitor="val_accuracy"):
        super().__init__()
        self.path = path
        self.target = target
        self.monitor = monitor
        self.best = -math.inf
        self.best_epoch = None

    def on_epoch_end(self, epoch, logs=None):
        value = logs.get(self.monitor)
        if value is None:
            raise ValueError(f"no metric is called {self.monitor!r}, there are {', '.join(sorted(logs))}")
        if value > self.best:
            with atomic_path(self.path) as partial:
                (self.target or self.model).save_weights(partial)
            self.best, self.best_epoch = value, epoch + 1


class LastState(keras.callbacks.Callback):
    """Saves model and optimizer after every epoch, whole or not at all.

    Args:
        path: ends in `.keras`.
    """

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        with atomic_path(self.path) as partial:
            self.model.save(partial)


class History(keras.callbacks.Callback):
    """Keeps one row an epoch, in `rows` and in a CSV file that is whole after every epoch.

    Columns: epoch from 1, seconds since the start, images a second in training (validation not
    counted), learning rate at the epoch's end, then the metrics.

    Args:
        path: the CSV file.
        num_images: int, training images an epoch.
        batch_size: int.
    """

    def __init__(self, path, num_images, batch_size):
        super().__init__()
        self.path = path
        self.num_images = num_images
        self.batch_size = batch_size
        self.rows = []
        self.train_seconds = 0.0
        self.train_images = 0

    def on_train_begin(self, logs=None):
        self.started = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch_started = time.perf_counter()
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        self.batches_ended = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = self.batches_ended - self.epoch_started
        images = min(self.batches * self.batch_size, self.num_images)
        self.train_seconds += seconds
        self.train_images += images
        self.rows.append(
            {
                "epoch": epoch + 1,
                "seconds": round(time.perf_counter() - self.started, 2),
                "images_per_second": round(images / seconds, 1),
                "learning_rate": float(self.model.optimizer.learning_rate),
                **{name: float(value) for name, value in logs.items()},
            }
        )
        with atomic_path(self.path) as partial, open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[-1])
            writer.writeheader()
            writer.writerows(self.rows)


class ProgressBar(keras.callbacks.Callback):
    """Shows the run as one bar with its ETA, and prints one line an epoch.

    Args:
        schedule: the run's `Schedule`, which knows how far it is.
        history: the run's `History`; it must come earlier in the list of callbacks.
        console: a `rich.console.Console`. Defaults to the standard output.
    """

    def __init__(self, schedule, history, console=None):
        super().__init__()
        self.schedule = schedule
        self.history = history
        self.console = console or Console(highlight=False)

    def on_train_begin(self, logs=None):
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %  {task.fields[state]}"),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("epoch 1", total=1.0, state="")
        self.bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        self.bar.update(self.task, description=f"epoch {epoch + 1}")

    def on_train_batch_end(self, batch, logs=None):
        state = f"loss {logs['loss']:.3f}  accuracy {logs['accuracy']:.1%}"
        if self.schedule.remaining is not None:
            state += f"  ETA {clock(self.schedule.remaining)}"
        self.bar.update(self.task, completed=self.schedule.progress, state=state)

    def on_epoch_end(self, epoch, logs=None):
        row = self.history.rows[-1]
        self.bar.console.print(
            f"epoch {row['epoch']:3d}  {clock(row['seconds'])}  "
            f"loss {row['loss']:.3f} (val {row['val_loss']:.3f})  "
            f"accuracy {row['accuracy']:.1%} (val {row['val_accuracy']:.1%})  "
            f"{row['images_per_second']:.0f} images/s",
            soft_wrap=True,
        )

    def close(self):
        """Takes the bar away; call it when `fit` was left by an exception, too."""
        self.bar.stop()

    def on_train_end(self, logs=None):
        self.close()


def clock(seconds):
    """Returns seconds as minutes:seconds, such as "3:07"."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"


def evaluate(logits, labels, class_names):
    """Returns accuracies and the confusion matrix of a classifier.

    Args:
        logits: float array (n, k).
        labels: int array (n,).
        class_names: k names.

    Returns:
        A dict ready for JSON: `accuracy` and `top5_accuracy` in [0, 1], `accuracy_per_class` by
        name (None for a class without images), `confusion` as k rows of the true class.
    """
    predicted = logits.argmax(-1)
    top5 = np.argsort(-logits, axis=-1)[:, :5]
    confusion = np.zeros((len(class_names),) * 2, int)
    np.add.at(confusion, (labels, predicted), 1)
    counts = confusion.sum(1)
    return {
        "accuracy": float((predicted == labels).mean()),
        "top5_accuracy": float((top5 == labels[:, None]).any(-1).mean()),
        "accuracy_per_class": {
            name: float(confusion[i, i] / counts[i]) if counts[i] else None
            for i, name in enumerate(class_names)
        },
        "confusion": confusion.tolist(),
    }
