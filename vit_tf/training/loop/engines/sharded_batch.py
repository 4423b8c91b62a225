"""The engine that trains batch by batch on several devices and processes, on JAX."""

from contextlib import closing
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np

from vit_tf.checks import require
from vit_tf.data.augment.mixing import blend
from vit_tf.data.loader import as_targets
from vit_tf.training.loop.checkpoints import named, to_arrays
from vit_tf.training.loop.engines import epoch_functions as functions
from vit_tf.training.loop.engines.train_batch import TrainBatchEngine, Trained


class ShardedEngine(TrainBatchEngine):
    """Trains on global batches, of which each process reads its rows, to the weights of one device.

    One compiled step mixes, augments, and updates: what is drawn at random is drawn for the global batch, so
    that it does not depend on the number of devices. Where the devices do not divide the last batch of an
    epoch, it is padded with images of weight 0.

    Args:
        devices: a `vit_tf.training.distribution.placement.JaxDevices`.
        accuracy: function from targets and logits (b, k) to the accuracy of each image (b,).
        *arguments, **options: see `TrainBatchEngine`.

    Raises:
        ValueError: the devices do not divide a batch, or the model has BatchNormalization and a batch would
            be padded.

    Shapes: b images of a batch, p rows of the padded batch, k classes.
    """

    def __init__(self, devices, accuracy, *arguments, **options):
        super().__init__(*arguments, **options)
        self.devices = devices
        self.accuracy = accuracy
        check_batches(self.loader, devices.num_parts, self.training_model)
        self.steps = {}

    @cached_property
    def groups(self):
        return {
            "trainable": self.training_model.trainable_variables,
            "non_trainable": self.training_model.non_trainable_variables,
            "optimizer": self.optimizer.variables,
        }

    def train(self, epoch, start, steps):
        loader, rows = self.loader, self.devices.rows
        with closing(loader.epoch(epoch, start, rows)) as batches:
            for index, (images, labels) in enumerate(batches, start):
                length = loader.batch_length(index)
                mixing = loader.draw_mixing(epoch, index, images.shape[1:3])
                fraction, rate = (values[0] for values in steps(1))
                yield self.train_rows(images, labels, length, mixing, fraction, rate)

    def train_rows(self, images, labels, length, mixing, fraction, rate):
        """Trains on a global batch of b = `length` images, of which this process has some rows."""
        models = self.resolution_models
        model = models[min(int(fraction * len(models)), len(models) - 1)]
        values = functions.values_of(self.groups)
        batch = [self.devices.to_global(rows, length) for rows in (images, labels)]
        others = self.devices.to_all((np.float32(rate), mixing))
        if (model, length) not in self.steps:
            step = make_step(model, self.optimizer, self.accuracy, self.class_weights, length)
            places = jax.tree.map(lambda value: value.sharding, values)
            self.steps[model, length] = jax.jit(step, donate_argnums=0, out_shardings=(places, None))
        values, logs = self.steps[model, length](values, *batch, *others)
        functions.assign(self.groups, values)
        return Trained(1, length, {name: float(value) for name, value in logs.items()})

    def averaged(self, variables):
        """Returns the averages in the place of trained variables, if the optimizer keeps any."""
        optimizer = self.optimizer
        if not getattr(optimizer, "averages", None) or not int(optimizer.iterations):
            return variables
        trained = {id(variable) for variable in self.groups["trainable"]}
        return [optimizer.average(x) if id(x) in trained else x for x in variables]

    def validate(self, after_batch=lambda: None):
        groups = self.groups | {"trainable": self.averaged(self.groups["trainable"])}
        return self.compute_logits(groups, self.validation, after_batch)

    def predict(self, loader, flip_tta=False):
        return self.compute_logits(self.groups, loader, flip_tta=flip_tta)

    def evaluated_weights(self):
        own = self.model.variables
        # The names are those of the weights.
        return dict(zip(named({"best": own}), to_arrays({"best": self.averaged(own)}).values()))

    @cached_property
    def compiled_predict(self):
        function = partial(predict_batch, self.training_model)
        return jax.jit(function, out_shardings=self.devices.replicated, static_argnames="flip_tta")

    def compute_logits(self, groups, loader, after_batch=lambda: None, flip_tta=False):
        """Returns (logits, targets) of all images of a loader, each computed once, on every process."""
        values = functions.values_of({name: groups[name] for name in ("trainable", "non_trainable")})
        logits = []
        with closing(loader.epoch(rows=self.devices.rows)) as batches:
            for index, (images, _) in enumerate(batches):
                length = loader.batch_length(index)
                outputs = self.compiled_predict(
                    values, self.devices.to_global(images, length), flip_tta=flip_tta
                )
                logits.append(np.asarray(outputs)[:length])
                after_batch()
        return np.concatenate(logits), as_targets(loader.labels[loader.order(0)], loader.num_classes)


def make_step(model, optimizer, accuracy, class_weights, length):
    """Returns a training step as a pure function of JAX.

    Args:
        model: a compiled model of Keras from images to logits.
        optimizer: of `make_optimizer`, built for `model.trainable_variables`.
        accuracy, class_weights: see `ShardedEngine`.
        length: int, b.

    Returns:
        A function `(values, images, labels, rate, mixing) -> (values, logs)`: values as of
        `epoch_functions.groups`; images (p, h, w, c) and labels float32 (p, k), whose rows from b on are
        ignored; rate float32, the learning rate; mixing as `blend` takes it, for b images.
    """

    def compute_loss(labels, logits):
        weights = None if class_weights is None else labels[:length] @ class_weights
        # Only the rows of images: their mean is that of one device.
        return model.loss(labels[:length], logits[:length], sample_weight=weights)

    update = functions.make_update(model, optimizer, compute_loss)

    def step(values, images, labels, rate, mixing):
        images, labels = blend_rows(images, labels, mixing, length)
        values, value, logits = update(values, images, labels, rate)
        is_right = accuracy(labels[:length], logits[:length])
        return values, {"loss": value, "accuracy": is_right.mean()}

    return step


def blend_rows(images, labels, mixing, length):
    """Returns `blend` of the first b = `length` rows of a padded batch, with the padding behind them."""
    if mixing is None:
        return images, labels
    blended = blend(images[:length], labels[:length], mixing)
    padding = images[length:].astype("float32"), labels[length:]
    return tuple(jnp.concatenate(parts) for parts in zip(blended, padding))


def predict_batch(model, values, images, flip_tta=False):
    """Returns the logits of images; with `flip_tta` the mean logits of an image and its mirror image."""

    def logits_of(images):
        return model.stateless_call(values["trainable"], values["non_trainable"], images, training=False)[0]

    logits = logits_of(images)
    return (logits + logits_of(images[:, :, ::-1])) / 2 if flip_tta else logits


def check_batches(loader, num_parts, model):
    """Raises a ValueError unless the batches of a loader can be divided into equal parts."""
    size = loader.batch_size
    hint = f"choose a multiple of {num_parts}"
    require(size % num_parts == 0, f"--batch-size {size} cannot be divided over {num_parts} devices: {hint}")
    last = loader.batch_length(len(loader) - 1)
    averages = any("moving_mean" in variable.path for variable in model.variables)
    problem = f"the last batch of an epoch has {last} images, which {num_parts} devices do not divide"
    hint = "BatchNormalization would average over the padding: choose a --batch-size that divides the images"
    require(not averages or last % num_parts == 0, f"{problem}: {hint}")
