"""The engine that compiles whole epochs, on JAX: data, model and optimizer stay on the device."""

import time

import jax
import keras
import numpy as np

from vit_tf.checks import require
from vit_tf.data.loader import as_targets
from vit_tf.training.augmentation import device_augmentation, make_mix
from vit_tf.training.loop.engines import epoch_functions as functions
from vit_tf.training.loop.engines.train_batch import TrainBatchEngine, Trained

ENGINE = "--engine compiled-epoch"


class CompiledEpochEngine(TrainBatchEngine):
    """Trains an epoch in one compiled call: it can be interrupted and saved between epochs alone.

    Args:
        model: a compiled `keras.Model` from images in [0, 255] to logits.
        augmentation: see `vit_tf.training.loop.engines.epoch_functions.make_step`.
        loader, validation: `vit_tf.data.DataLoader` of uint8 arrays, without transform and mix.
        mix: a `vit_tf.data.augment.mixing.MixUpCutMix` or None.
        seed: int, of order and mixing.

    Raises:
        ValueError: Keras does not compute by JAX, or the images or their labels cannot be used.
    """

    saves_every_epoch = False  # an epoch may take a second

    def __init__(self, model, augmentation, loader, validation, *, mix=None, seed=0):
        check_arrays(loader, model)
        super().__init__(model, model, loader, validation)
        self.augmentation = augmentation
        self.groups = functions.groups(model, augmentation, self.optimizer)
        step = functions.make_step(model, augmentation, self.optimizer, model.loss)
        self.compute_epoch = jax.jit(functions.make_epoch(step, loader.batch_size, mix), donate_argnums=0)
        self.compute_logits = jax.jit(functions.make_predict(model))
        self.key = jax.random.key(seed)
        self.arrays = jax.device_put((loader.images, as_targets(loader.labels, loader.num_classes)))
        self.validation_images = jax.device_put(validation.images)
        self.compile_seconds = 0.0

    @property
    def steps_per_epoch(self):
        """How many whole batches an epoch has."""
        return self.loader.num_images // self.loader.batch_size

    @property
    def variables(self):
        return {**super().variables, "augmentation": self.augmentation.variables}

    def prepare(self, steps):
        """Compiles the epoch and the prediction."""
        started = time.perf_counter()
        values = functions.values_of(self.groups)
        arguments = (*self.arrays, self.rates(steps), self.key)
        self.compute_epoch = self.compute_epoch.lower(values, *arguments).compile()
        arguments = *self.evaluated_values(values), self.validation_images
        self.compute_logits = self.compute_logits.lower(*arguments).compile()
        self.compile_seconds = time.perf_counter() - started

    def details(self):
        device = jax.devices()[0].device_kind
        return {"device": device, "compile_seconds": round(self.compile_seconds, 1)}

    def rates(self, steps):
        """Returns the learning rates of an epoch, float32 (s,)."""
        return np.asarray(steps(self.steps_per_epoch)[1], "float32")

    def evaluated_values(self, values):
        """Returns the (trainable, non-trainable) values to validate: averages, if the optimizer keeps any."""
        averages = getattr(self.optimizer, "averages", None)
        averages = functions.values_of(list(averages)) if averages else values["trainable"]
        return averages, values["non_trainable"]

    def train(self, epoch, start, steps):
        """Trains a whole epoch, or nothing where `start` is at its end: see `TrainBatchEngine.train`."""
        if start:
            return
        key = jax.random.fold_in(self.key, epoch)
        values = functions.values_of(self.groups)
        values, results = self.compute_epoch(values, *self.arrays, self.rates(steps), key)
        functions.assign(self.groups, values)
        loss, accuracy = map(float, results)  # waits for the device
        images = self.steps_per_epoch * self.loader.batch_size
        yield Trained(self.steps_per_epoch, images, {"loss": loss, "accuracy": accuracy})

    def validate(self, after_batch=lambda: None):
        values = self.evaluated_values(functions.values_of(self.groups))
        logits = np.asarray(self.compute_logits(*values, self.validation_images))
        return logits, as_targets(self.validation.labels, self.validation.num_classes)

    def predict(self, loader, flip_tta=False):
        values = functions.values_of(self.groups)
        images = loader.images[: loader.num_images]
        views = [images, images[:, :, ::-1]] if flip_tta else [images]
        compute = jax.jit(functions.make_predict(self.model))
        logits = [np.asarray(compute(values["trainable"], values["non_trainable"], view)) for view in views]
        return np.mean(logits, axis=0), as_targets(loader.labels, loader.num_classes)


def check_arrays(loader, model):
    """Raises a ValueError unless the engine can train a model on the images of a loader."""
    images, size, num_images = loader.images, loader.batch_size, loader.num_images
    is_uint8 = isinstance(images, np.ndarray) and images.dtype == np.uint8
    require(is_uint8, f"{ENGINE} needs images as a uint8 array: choose --engine train-batch")
    shapes = f"the images are {images.shape[1:]}, and the model takes {model.input_shape[1:]}"
    is_taken = all(own in (None, side) for own, side in zip(model.input_shape, images.shape))
    require(is_taken, f"{ENGINE} does not resize: {shapes}")
    hint = "got labels of several: choose --engine train-batch"
    require(loader.labels.ndim == 1, f"{ENGINE} needs one class per image, {hint}")
    sizes = f"got --batch-size {size} for {num_images} images"
    require(size <= num_images, f"{ENGINE} needs whole batches: {sizes}")


def make_engine(model, recipe, optimizer, train, validation):
    """Returns the `CompiledEpochEngine` of a model by a recipe; arguments as of `make_trainer`."""
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
    model.compile(optimizer, loss)
    augmentation = device_augmentation(recipe, train.images.shape[1:])
    return CompiledEpochEngine(model, augmentation, train, validation, mix=make_mix(recipe), seed=recipe.seed)
