"""The engine that trains batch by batch with Keras's `train_on_batch`."""

from contextlib import closing
from dataclasses import dataclass

from vit_tf.training.loop.checkpoints import to_arrays
from vit_tf.training.metrics import predict
from vit_tf.training.optimizers import averaged_weights


@dataclass(frozen=True)
class Trained:
    """What an engine has trained in one go."""

    batches: int  # how many
    images: int
    logs: dict[str, float]  # means over these images: "loss" and "accuracy"


class TrainBatchEngine:
    """Trains batch by batch, on every backend and with all settings of a recipe.

    Args:
        training_model: a compiled `keras.Model` from images to logits, with the metric "accuracy".
        model: the ViT inside, whose weights are the result; may be `training_model` itself.
        loader: `vit_tf.data.DataLoader` of the training images.
        validation: `vit_tf.data.DataLoader` that does not shuffle.
        resolution_models: models that train in turn for equal parts of the run. They are compiled as
            `training_model` is, which may be one of them, and share its variables and its optimizer. Empty
            for `training_model` alone.
        class_weights: float array (k,), the weight of an image of each class; None for equal weights.
    """

    saves_every_epoch = True

    def __init__(
        self, training_model, model, loader, validation, *, resolution_models=(), class_weights=None
    ):
        self.training_model = training_model
        self.model = model
        self.loader = loader
        self.validation = validation
        self.resolution_models = list(resolution_models) or [training_model]
        self.class_weights = class_weights
        if not self.optimizer.built:
            self.optimizer.build(training_model.trainable_variables)

    @property
    def optimizer(self):
        return self.training_model.optimizer

    @property
    def steps_per_epoch(self):
        """How many batches an epoch has."""
        return len(self.loader)

    @property
    def variables(self):
        """All variables that training changes, as a dict of lists."""
        return {"model": self.training_model.variables, "optimizer": self.optimizer.variables}

    def prepare(self, steps):
        """Compiles ahead of time, with `steps` as of `train`; here Keras compiles in the first step."""

    def details(self):
        """Returns what the engine adds to metrics.json, a dict."""
        return {}

    def train(self, epoch, start, steps):
        """Trains from batch `start` of an epoch to its end.

        Args:
            epoch: int, which determines the order of the images and what is drawn at random.
            start: int, the first batch.
            steps: function from a number n to two float arrays (n,) about the next n batches: the fraction of
                the run that is over, and the learning rate.

        Yields:
            A `Trained` as soon as its batches are done.
        """
        with closing(self.loader.epoch(epoch, start)) as batches:
            for images, labels in batches:
                yield self.train_step(images, labels, *(values[0] for values in steps(1)))

    def train_step(self, images, labels, fraction, rate):
        """Trains on a batch at a learning rate, after a fraction of the run; returns a `Trained`."""
        self.optimizer.learning_rate.assign(rate)
        models = self.resolution_models
        model = models[min(int(fraction * len(models)), len(models) - 1)]
        weights = None if self.class_weights is None else labels @ self.class_weights
        logs = model.train_on_batch(images, labels, sample_weight=weights, return_dict=True)
        return Trained(1, len(images), {name: float(value) for name, value in logs.items()})

    def validate(self, after_batch=lambda: None):
        """Returns (logits, targets) of the validation images, float32 (n, k), by the averaged weights if any.

        `after_batch` is called after each batch.
        """
        with averaged_weights(self.training_model, self.optimizer):
            return predict(self.training_model, self.validation, after_batch=after_batch)

    def predict(self, loader, flip_tta=False):
        """Returns (logits, targets) of a `vit_tf.data.DataLoader` by the model's present weights."""
        return predict(self.training_model, loader, flip_tta)

    def evaluated_weights(self):
        """Returns the weights that `validate` uses, as the arrays of `to_arrays` in the group "best"."""
        with averaged_weights(self.training_model, self.optimizer):
            return to_arrays({"best": self.model.variables})
