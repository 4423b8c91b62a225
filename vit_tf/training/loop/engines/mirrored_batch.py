"""The engine that trains batch by batch on several devices of one host, by TensorFlow's `MirroredStrategy`.

A run on several devices has the results of one device: the same global batches in the same order, the same
random numbers, and the same weights up to the rounding of sums in another order. Keras's own `train_on_batch`
gives every device the whole batch, clips the gradients of each device before they are summed, and cannot
accumulate them. Here a step is:

1. Layers before the ViT, which resize and augment, act on the global batch on the first device.
2. Each device computes the loss and the gradients of its part of the batch. Images that fill up a part have
   the weight 0.
3. The gradients are summed over the devices. The optimizer is called outside of the devices' own functions
   ("cross-replica"), where Keras adds nothing to the sums: clipping, accumulation and averages act on the
   gradients of the global batch. Each device then updates its own copy of the variables.

Shapes: b images of a batch, r devices ("replicas"), h rows, w columns, c channels, k classes.
"""

import warnings

import keras
import numpy as np
import tensorflow as tf

from vit_tf.checks import require
from vit_tf.training.loop.engines.train_batch import TrainBatchEngine, Trained
from vit_tf.training.metrics import predict
from vit_tf.training.optimizers import averaged_weights
from vit_tf.training.tasks import SINGLE_LABEL

PROBLEM = "several devices on TensorFlow do not support"
ALTERNATIVE = "start the process with KERAS_BACKEND=jax, or train on one device"


def mirrored_devices():
    """Returns the names of the devices to train on: all GPUs, or without any the logical CPUs."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in devices]


def mirrored_strategy(devices=None):
    """Returns a `tf.distribute.MirroredStrategy`, in whose `scope()` model and optimizer must be made.

    Args:
        devices: list of names, or None for `mirrored_devices`.
    """
    devices = mirrored_devices() if devices is None else devices
    is_shared = len(devices) > len(tf.config.list_physical_devices("GPU"))
    # NCCL, the default of GPUs, needs a GPU for each device.
    cross_device_ops = tf.distribute.ReductionToOneDevice() if is_shared else None
    return tf.distribute.MirroredStrategy(devices, cross_device_ops)


class MirroredEngine(TrainBatchEngine):
    """Trains batch by batch on several devices of one host; the results are those of one device.

    All models and the optimizer are made in the scope of `mirrored_strategy()`.

    Args:
        training_model, model, loader, validation, resolution_models, class_weights: see `TrainBatchEngine`.
            The loader yields global batches. The last layer of a training model is its ViT.
        task: one of `vit_tf.training.tasks.TASKS`, whose accuracy is reported.
        jit_compile: bool, whether XLA compiles what each device computes; None for GPUs if it can.

    Raises:
        ValueError: the model was not made in such a scope, or results cannot be those of one device.
    """

    def __init__(
        self,
        training_model,
        model,
        loader,
        validation,
        *,
        task=SINGLE_LABEL,
        jit_compile=None,
        **options,
    ):
        self.strategy = training_model.distribute_strategy
        is_mirrored = isinstance(self.strategy, tf.distribute.MirroredStrategy)
        require(is_mirrored, "several devices need models of the scope of a `tf.distribute.MirroredStrategy`")
        check_exact(model)
        self.task = task
        self.jit_compile = self.has_gpus and supports_xla(model) if jit_compile is None else jit_compile
        with self.strategy.scope():
            super().__init__(training_model, model, loader, validation, **options)
        self.image_loss = loss_of_images(training_model.loss)
        self.trained_variables = training_model.trainable_variables
        self.steps = {id(own): self.make_step(own) for own in self.resolution_models}
        self.compute_logits = tf.function(self.mirrored_logits)

    def details(self):
        return {"devices": self.num_devices}

    @property
    def num_devices(self):
        """How many devices train, r."""
        return self.strategy.num_replicas_in_sync

    @property
    def has_gpus(self):
        return all("GPU" in device for device in self.strategy.extended.worker_devices)

    # -----------------------------------------------------------------------------------------------
    # Training
    # -----------------------------------------------------------------------------------------------
    def train_step(self, images, labels, fraction, rate):
        self.optimizer.learning_rate.assign(rate)
        models = self.resolution_models
        augment, step = self.steps[id(models[min(int(fraction * len(models)), len(models) - 1)])]
        b = len(images)
        shares = np.full(b, 1 / b, "float32")  # of an image in a mean over the batch
        weights = shares if self.class_weights is None else labels @ self.class_weights / b
        with self.strategy.scope():
            # Before the batch is filled up: what is drawn may depend on the number of images.
            images = augment(images) if augment else images
            parts = [self.parts(array) for array in (images, labels)]
            parts += [self.parts(array, is_filled=False) for array in (weights.astype("float32"), shares)]
            loss, accuracy = step(*parts)
        return Trained(1, b, {"loss": float(loss), "accuracy": float(accuracy)})

    def make_step(self, training_model):
        """Returns the functions of a step: what acts on the global batch, or None, and the rest."""
        augmentation, network = split_model(training_model)
        compute = tf.function(self.make_gradients(network), jit_compile=self.jit_compile)

        @tf.function
        def step(images, labels, weights, shares):
            # A `tf.function` itself would be made one for all devices, which XLA cannot compile.
            part = images, labels, weights, shares
            gradients, *sums = self.strategy.run(lambda *args: compute(*args), args=part)
            self.update(gradients)
            return [self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for value in sums]

        @tf.function
        def augment(images):
            images = tf.cast(images, training_model.input.dtype)
            for layer in augmentation:
                images = layer(images, training=True)
            return images

        return augment if augmentation else None, step

    def make_gradients(self, network):
        """Returns the function that one device computes: gradients, loss and accuracy of its part."""

        def gradients_of(images, labels, weights, shares):
            with tf.GradientTape() as tape:
                logits = network(images, training=True)
                loss = tf.reduce_sum(self.image_loss(labels, logits) * weights)
            gradients = tape.gradient(loss, self.trained_variables)
            gradients = [None if value is None else tf.convert_to_tensor(value) for value in gradients]
            return gradients, loss, tf.reduce_sum(self.task.image_accuracy(labels, logits) * shares)

        return gradients_of

    def update(self, gradients):
        """Sums the gradients of all devices, and makes the optimizer's step, as on one device."""
        pairs = [pair for pair in zip(gradients, self.trained_variables) if pair[0] is not None]
        gradients, variables = zip(*pairs)
        destinations = [variable.value for variable in variables]
        sums = self.strategy.extended.batch_reduce_to(
            tf.distribute.ReduceOp.SUM, list(zip(gradients, destinations))
        )
        self.optimizer.apply(sums, variables)

    def parts(self, array, is_filled=True):
        """Splits an array (b, ...) into equal parts, one per device.

        Where r does not divide b, the array is filled up with its own first rows, or with zeros.
        """
        b, r = len(array), self.num_devices
        size = -(-b // r)
        if missing := size * r - b:
            rows = tf.gather(array, np.arange(missing) % b) if is_filled else np.zeros(missing, "float32")
            array = tf.concat([array, rows], axis=0)
        devices = self.strategy.extended.worker_devices

        def part(context):
            i = context.replica_id_in_sync_group
            with tf.device(devices[i]):
                return tf.convert_to_tensor(array[i * size : (i + 1) * size])

        return self.strategy.experimental_distribute_values_from_function(part)

    # -----------------------------------------------------------------------------------------------
    # Evaluation
    # -----------------------------------------------------------------------------------------------
    def validate(self, after_batch=lambda: None):
        with averaged_weights(self.training_model, self.optimizer):
            return predict(self, self.validation, after_batch=after_batch)

    def predict(self, loader, flip_tta=False):
        return predict(self, loader, flip_tta)

    def predict_on_batch(self, images):
        """Returns the logits (b, k) of images; each device computes a part of them."""
        with self.strategy.scope():
            logits = self.compute_logits(self.parts(images))
        parts = self.strategy.experimental_local_results(logits)
        return np.concatenate([part.numpy() for part in parts])[: len(images)]

    def mirrored_logits(self, images):
        return self.strategy.run(lambda part: self.training_model(part, training=False), args=(images,))


def split_model(training_model):
    """Returns the list of layers before the ViT of a model of `make_training_model`, and the ViT."""
    *layers, network = training_model.layers[1:]
    return (layers, network) if isinstance(network, keras.Model) else ([], training_model)


def supports_xla(model):
    """Returns whether XLA can compile a model.

    Keras itself compiles no model of a strategy by default: the sums over the devices would be compiled, too.
    """
    probe = keras.Model(model.inputs, model.outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that XLA cannot
        probe.jit_compile = True
    return probe.jit_compile


def loss_of_images(loss):
    """Returns a loss without its mean over the batch, a function of targets and logits (b, k) to (b,)."""
    return type(loss).from_config({**loss.get_config(), "reduction": "none"})


def check_exact(model):
    """Raises a ValueError unless several devices can train a model as one device does."""
    for layer in model._flatten_layers():
        if any(isinstance(value, keras.random.SeedGenerator) for value in vars(layer).values()):
            problem = "draws random numbers, which would be others on each device: set its rate to 0"
        elif isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            problem = "normalizes by the mean of a batch, of which each device has only a part: freeze it"
        else:
            continue
        raise ValueError(f"{PROBLEM} the layer {layer.path or layer.name}: it {problem}, {ALTERNATIVE}")
    if model.compute_dtype == "float16":
        raise ValueError(
            f"{PROBLEM} float16, whose scale of the loss each device would set: use bfloat16, {ALTERNATIVE}"
        )
