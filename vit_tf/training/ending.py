"""What a run does at its end, and its rehearsal before the first step."""

import copy
import random
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np

from vit_tf import classifier
from vit_tf.checks import listing
from vit_tf.files import PARTIAL
from vit_tf.models import build_vit
from vit_tf.training.final_report import draw_report, save_model, write_metrics
from vit_tf.training.loop.generators import restore_rng_state, rng_state
from vit_tf.training.loop.trainer import Progress
from vit_tf.training.lora import add_lora
from vit_tf.training.run import make_network
from vit_tf.weights.formats.timm import weight_mappings

NUM_REHEARSED = 4  # test images


@dataclass(frozen=True)
class Ending:
    """All that a run writes at its end, and what it needs to know for that.

    Args:
        recipe: the run's `Recipe`.
        test: the test images, `vit_tf.data.DataLoader` that does not shuffle.
        class_names: k names.
        variant: name of the network's variant.
        hyperparameters: dict, overrides of it.
        preprocessing: the `Preprocessing` of the network, or None for images of other than three channels.
        title: the heading of the pictures.
        details: dict, goes into metrics.json, too.
    """

    recipe: object
    test: object
    class_names: tuple[str, ...]
    variant: str
    hyperparameters: dict
    preprocessing: object
    title: str
    details: dict = field(default_factory=dict)

    def write(self, trainer, folder, **details):
        """Tests the best weights, and writes metrics, model and pictures.

        Args:
            trainer: a `Trainer` at the end of its run. LoRA is merged into its network.
            folder: `pathlib.Path`, the run's folder.
            **details: what is only known at the end; goes into metrics.json, too.

        Returns:
            The metrics: see `write_metrics`.
        """
        details = {**self.details, **details}
        metrics, logits = write_metrics(trainer, self.recipe, self.test, self.class_names, folder, details)
        self.save_model(trainer, folder / "model", metrics.get("thresholds"))
        draw_report(trainer.progress.rows, self.test, logits, metrics, self.class_names, folder, self.title)
        return metrics

    def save_model(self, trainer, folder, thresholds=None):
        save_model(
            trainer.network,
            self.recipe,
            folder,
            self.variant,
            self.hyperparameters,
            self.preprocessing,
            self.class_names,
            problem_type=trainer.task.problem_type,
            thresholds=thresholds,
        )


def rehearse(ending, trainer):
    """Does all that a run does at its end with its untrained model, and reads the model back.

    A run that cannot be ended fails here, within seconds, instead of after all of its training. The test
    images are only a few, and the files go into a temporary folder inside the run's. Neither the model nor
    the state of any random generator changes.

    Args:
        ending: the run's `Ending`.
        trainer: a `Trainer` at the start of its run.

    Raises:
        ValueError: the end would fail, or the model that was read back is another one.
        OSError: the disk is full, or the folder cannot be written to.
    """
    with (
        untouched_randomness(),
        tempfile.TemporaryDirectory(
            prefix=PARTIAL, suffix=".rehearsal", dir=trainer.folder, ignore_cleanup_errors=True
        ) as folder,
    ):
        try:
            few = replace(ending, test=ending.test.head(NUM_REHEARSED))
            actor = understudy(few, trainer)
            few.write(actor, Path(folder))
            check_model(few, actor, Path(folder) / "model")
        except ValueError as error:
            raise ValueError(f"the rehearsal of this run's end failed, before its start: {error}") from error
        except Exception as error:
            error.add_note("This was the rehearsal of the run's end, before its first step.")
            raise


@contextmanager
def untouched_randomness():
    """A scope that leaves the generators of Python, NumPy and the backend as they were."""
    states = random.getstate(), np.random.get_state(), rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        restore_rng_state(states[2])


def understudy(ending, trainer):
    """Returns a copy of a trainer that is at the end of a run of one step, without having trained.

    Its network is another one where the end changes the network, which is so with LoRA.
    """
    actor = copy.copy(trainer)
    actor.load_best = lambda: None
    actor.validation = trainer.validation.head(NUM_REHEARSED)
    actor.started = time.perf_counter()
    actor.progress = Progress(step=1, images=1, train_seconds=1.0)
    actor.progress.totals = {"images": 1, "seconds": 1.0, "loss": 0.0, "accuracy": 0.0}
    with closing(ending.test.epoch()) as batches:
        _, targets = next(batches)
    row = actor.history_row(np.zeros_like(targets), targets)
    actor.progress.rows, actor.progress.best = [row], row
    if ending.recipe.lora_rank:
        recipe = ending.recipe
        actor.network = make_network(ending.variant, ending.hyperparameters, recipe, ending.preprocessing)
        add_lora(actor.network, recipe.lora_rank, recipe.lora_alpha, on=recipe.lora_targets.split(","))
    return actor


def check_model(ending, trainer, folder):
    """Raises a ValueError where a model's folder does not give the same model back."""
    if ending.preprocessing is None:
        read = build_vit(weights=folder)
    else:
        loaded = classifier.load(folder)
        read = loaded.model
        if loaded.problem_type != trainer.task.problem_type:
            raise ValueError(f"the model's folder gives outputs of {loaded.problem_type}")
        if loaded.preprocessing != ending.preprocessing:
            raise ValueError(f"the model's folder gives {loaded.preprocessing}, not {ending.preprocessing}")
    ours, theirs = arrays_of(trainer.network), arrays_of(read)
    differing = [name for name in ours | theirs if not np.array_equal(ours.get(name), theirs.get(name))]
    if differing:
        raise ValueError(f"the model's folder gives other weights than were written: {listing(differing)}")


def arrays_of(model):
    """Returns the weights of a model of `build_vit` as a dict of arrays, by timm's names."""
    return {
        name: keras.ops.convert_to_numpy(entry.variable.value)
        for name, entry in weight_mappings(model).items()
    }
