"""The training loop around compiled epochs: data, model and optimizer stay on the device."""

import math
import time
from dataclasses import fields

import jax
import keras
import numpy as np

from vit_tf.checks import shown
from vit_tf.data.augment import batch as augment
from vit_tf.training.batches import batch_augmentation, make_mix
from vit_tf.training.loop.compiled_epoch import assign, groups, make_epoch, make_predict, make_step, values_of
from vit_tf.training.loop.trainer import BEST, Trainer
from vit_tf.training.memory_limit import require_step_memory
from vit_tf.training.recipes import Recipe
from vit_tf.training.run import recipe_optimizer, recipe_schedule

# The other settings of a recipe must have their defaults: they are for images that the CPU prepares.
SETTINGS = (
    "epochs minutes checkpoint_minutes optimizer learning_rate schedule warmup step_decay weight_decay "
    "layer_decay momentum clip_norm batch_size accumulation_steps ema drop_path_rate dropout_rate "
    "label_smoothing crop flip randaugment random_erasing mixup cutmix flip_tta mixed_precision remat seed"
).split()
CROPS = ("pad", "affine", "none")


class ArrayBatches:
    """A data set of arrays as batches, in order: the `vit_tf.data.DataLoader` of the device.

    Args:
        images: uint8 (n, h, w, c).
        labels: integers (n,) in 0 .. num_classes - 1.
        num_classes: int, k.
        batch_size: int, b.

    `len()` is the number of whole batches, those of an epoch of training.

    Raises:
        ValueError: the arrays do not fit each other, or are too few for one batch.
    """

    transform = None

    def __init__(self, images, labels, num_classes, batch_size):
        images, labels = np.asarray(images), np.asarray(labels)
        if labels.dtype == bool:
            raise ValueError(
                "training on the device takes one class per image, got bool labels of several: train by "
                "scripts/finetune.py"
            )
        if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != (len(images),):
            raise ValueError(
                "expected uint8 images (n, h, w, c) and integer labels (n,), got "
                f"{images.dtype} {images.shape} and {labels.dtype} {labels.shape}"
            )
        low, high = (labels.min(), labels.max()) if len(labels) else (0, -1)
        if labels.dtype.kind not in "iu" or not 0 <= low <= high < num_classes:
            raise ValueError(
                f"labels must be integers from 0 to {num_classes - 1}, got {len(labels)} of {labels.dtype} "
                f"from {low} to {high}"
            )
        if not 0 < batch_size <= len(images):
            raise ValueError(
                f"the batch size must be from 1 to the number of images, got {batch_size} for {len(images)} "
                "images: choose a smaller --batch-size"
            )
        self.images = images
        self.labels = labels
        self.targets = np.eye(num_classes, dtype="float32")[labels]  # (n, k)
        self.batch_size = batch_size

    def __len__(self):
        return len(self.images) // self.batch_size

    def head(self, count):
        """Returns `ArrayBatches` of the first images alone, `count` of them or as many as there are."""
        count = min(count, len(self.images))
        return ArrayBatches(self.images[:count], self.labels[:count], self.targets.shape[1], count)

    def epoch(self):
        """Yields (images, targets), the smaller last batch, too."""
        for start in range(0, len(self.images), self.batch_size):
            batch = slice(start, start + self.batch_size)
            yield self.images[batch], self.targets[batch]


class DeviceTrainer(Trainer):
    """Trains by `make_epoch`: a `Trainer` that asks for a stop, and saves, between epochs alone.

    The weights that count are the last epoch's, averaged if the optimizer averages: they are validated after
    each epoch, and `load_best` puts them into the network.

    Args:
        network: a compiled `keras.Model` from images in [0, 255] to logits.
        augmentation: see `make_step`.
        train, validation: `ArrayBatches`.
        schedule: a `Schedule`. Its seconds do not include the compilation.
        folder: the run's folder.
        mix: a `vit_tf.data.augment.mixing.MixUpCutMix` or None.
        seed: int, of order and mixing.
        label_smoothing, checkpoint_minutes, callbacks: see `Trainer`.

    Raises:
        ValueError: Keras does not compute by JAX.
    """

    def __init__(
        self, network, augmentation, train, validation, schedule, folder, *, mix=None, seed=0, **options
    ):
        super().__init__(network, network, train, validation, schedule, folder, **options)
        self.augmentation = augmentation
        self.groups = groups(network, augmentation, network.optimizer)
        step = make_step(network, augmentation, network.optimizer, network.loss)
        self.epoch = jax.jit(make_epoch(step, train.batch_size, mix), donate_argnums=0)
        self.predict = jax.jit(make_predict(network))
        self.key = jax.random.key(seed)
        self.arrays = jax.device_put((train.images, train.targets))
        self.validation_images = jax.device_put(validation.images)
        self.compile_seconds = 0.0

    @property
    def variables(self):
        return {**super().variables, "augmentation": self.augmentation.variables}

    def run(self):
        """Compiles, and trains to the end: see `Trainer.run`."""
        if not self.progress.finished:
            self.compile()
        super().run()

    def compile(self):
        started = time.perf_counter()
        values = values_of(self.groups)
        arguments = (*self.arrays, self.rates(0.0), self.key)
        self.epoch = self.epoch.lower(values, *arguments).compile()
        self.predict = self.predict.lower(*self.evaluated(values), self.validation_images).compile()
        self.compile_seconds = time.perf_counter() - started

    def rates(self, elapsed):
        """Returns the learning rates of the epoch's steps, float32 (s,)."""
        middles = self.progress.epoch + (np.arange(len(self.train)) + 0.5) / len(self.train)
        shares = [self.schedule.share(middle, elapsed) for middle in middles]
        return np.array([self.schedule.rate(*pair) for pair in zip(shares, middles)], "float32")

    def evaluated(self, values):
        """Returns the (trainable, non-trainable) values that are validated: averages, if there are any."""
        averages = getattr(self.model.optimizer, "averages", None)
        averages = values_of(list(averages)) if averages else values["trainable"]
        return averages, values["non_trainable"]

    def train_epoch(self):
        progress, started = self.progress, time.perf_counter()
        key = jax.random.fold_in(self.key, progress.epoch)
        rates = self.rates(self.elapsed)
        values, results = self.epoch(values_of(self.groups), *self.arrays, rates, key)
        assign(self.groups, values)
        loss, accuracy = map(float, results)  # waits for the device
        num_steps = len(self.train)
        num_images = num_steps * self.train.batch_size
        progress.step += num_steps
        progress.images += num_images
        if not math.isfinite(loss):
            raise ValueError(self.failure_message(f"the mean loss of epoch {progress.epoch + 1} was {loss}"))
        progress.totals = {"images": num_images, "loss": loss * num_images, "accuracy": accuracy * num_images}
        self.count_seconds(time.perf_counter() - started)
        self.bar.update(progress, self.share, self.elapsed)

    def end_epoch(self):
        """Validates, writes the history, and saves when it is time."""
        progress = self.progress
        logits = np.asarray(self.predict(*self.evaluated(values_of(self.groups)), self.validation_images))
        row = self.history_row(logits, self.validation.targets)
        progress.best = {name: row[name] for name in row if name in BEST}
        progress.rows.append(row)
        progress.epoch += 1
        progress.finished = self.share >= 1
        progress.totals = {}
        if progress.finished or time.perf_counter() - self.saved_at > self.checkpoint_seconds:
            self.save()
        self.write_history()
        self.bar.end_epoch(row)
        self.callbacks.on_epoch_end(row["epoch"] - 1, row)

    def load_best(self):
        """Puts the averaged weights into the network. The run is over then: nothing may be saved."""
        averages, _ = self.evaluated(values_of(self.groups))
        for variable, average in zip(self.network.trainable_variables, averages):
            variable.assign(average)


def make_device_trainer(network, recipe, train, validation, folder):
    """Returns the `DeviceTrainer` of a network by a recipe, at the start of its run.

    Args:
        network: a model of `build_vit` over images (b, h, w, c) in [0, 255].
        recipe: a `Recipe`; see `check_recipe`.
        train, validation: `ArrayBatches`.
        folder: the run's folder.

    Raises:
        ValueError: a setting has no meaning on the device, or Keras does not compute by JAX.
    """
    check_recipe(recipe)
    require_step_memory(network, recipe)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
    network.compile(recipe_optimizer(network, recipe), loss)
    return DeviceTrainer(
        network,
        make_augmentation(recipe, train.images.shape[1:]),
        train,
        validation,
        recipe_schedule(recipe),
        folder,
        mix=make_mix(recipe),
        seed=recipe.seed,
        label_smoothing=recipe.label_smoothing,
        checkpoint_minutes=recipe.checkpoint_minutes,
    )


def check_recipe(recipe):
    """Raises a ValueError that names the first setting which training on the device does not know."""
    if recipe.crop not in CROPS:
        raise ValueError(f"on the device --crop must be one of {', '.join(CROPS)}, got {shown(recipe.crop)}")
    for item in fields(Recipe):
        value = getattr(recipe, item.name)
        if item.name not in SETTINGS and value != item.default:
            raise ValueError(
                f"training on the device has no --{item.name.replace('_', '-')}, got {shown(value)}: leave "
                "it out, or train by scripts/train_cifar10.py"
            )


def make_augmentation(recipe, image_shape):
    """Returns the augmentation of single images as a model from (b, h, w, c) to the same.

    RandAugment's part is played by rotation, zoom and colours, each up to RandAugment's own limit at that
    magnitude (10: 30 degrees, 30 %, factors from 0.1 to 1.9), and drawn evenly from there down to nothing.
    """
    layers = batch_augmentation(recipe, image_shape[:2])
    if recipe.randaugment:
        share = recipe.randaugment / 10
        layers.append(augment.RandomAffine(rotation=share / 12, zoom=0.3 * share, dtype="float32"))
        layers.append(augment.RandomColor(0.9 * share, dtype="float32"))
    if recipe.random_erasing:
        layers.append(augment.RandomErasing(recipe.random_erasing, dtype="float32"))
    images = keras.Input(image_shape, name="images")
    x = images
    for layer in layers or [keras.layers.Identity(dtype="float32")]:
        x = layer(x)
    return keras.Model(images, x, name="augmentation")
