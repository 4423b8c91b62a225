"""The end of a run: test, metrics, model folder, plots; and its rehearsal before the first step."""

import copy
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from vit_tf import classifier
from vit_tf.checks import listing
from vit_tf.data import DataLoader
from vit_tf.files import PARTIAL
from vit_tf.models import build_vit
from vit_tf.preprocessing.transform import Preprocessing
from vit_tf.training.distribution.host_arrays import gather_value, is_divided, undistributed
from vit_tf.training.final_report import draw_report, write_metrics
from vit_tf.training.loop.checkpoints import restore_rng_state, rng_state
from vit_tf.training.loop.trainer import Progress, Trainer
from vit_tf.training.lora import add_lora, merge_lora
from vit_tf.training.recipes import Recipe
from vit_tf.training.run import make_model
from vit_tf.weights.formats.timm import weight_mappings

NUM_REHEARSED = 4  # test images


@dataclass(frozen=True)
class Ending:
    """What a run writes at its end.

    Args:
        recipe: the run's `Recipe`.
        test: the test images, `vit_tf.data.DataLoader` that does not shuffle.
        class_names: k names.
        variant: name of the variant.
        hyperparameters: dict, overrides of it.
        preprocessing: the `Preprocessing` of the model, or None if images do not have three channels.
        title: heading of the plots.
        details: dict, added to metrics.json.
    """

    recipe: Recipe
    test: DataLoader
    class_names: tuple[str, ...]
    variant: str
    hyperparameters: dict
    preprocessing: Preprocessing | None
    title: str
    details: dict = field(default_factory=dict)

    def write(self, trainer: Trainer, folder: Path, **details: Any) -> dict[str, Any]:
        """Tests the best weights, and writes metrics.json, model folders and plots.

        The folder `model` has the best weights. With the recipe's `keep_last` the folder `last` has those of
        the last epoch.

        Args:
            trainer: a `Trainer` at the end of its run. LoRA is merged into its model.
            folder: `pathlib.Path`, the run's folder.
            **details: further values for metrics.json.

        Returns:
            The metrics: see `write_metrics`.
        """
        if self.recipe.keep_last:
            trainer.load_last()
            self.save_model(trainer, folder / "last")
        details = {**self.details, **trainer.engine.details(), **details}
        metrics, logits = write_metrics(trainer, self.recipe, self.test, self.class_names, folder, details)
        self.save_model(trainer, folder / "model", metrics.get("thresholds"))
        rows, names = trainer.progress.rows, self.class_names
        if trainer.group.is_main:
            draw_report(rows, self.test, logits, metrics, names, folder, self.title)
        return metrics

    def save_model(self, trainer: Trainer, folder: Path, thresholds: Sequence[float] | None = None) -> None:
        """Writes a model folder, in the main process; the others help to gather divided weights."""
        if self.recipe.lora_rank:
            merge_lora(trainer.model)
        model = self.whole_model(trainer.model)
        if not trainer.group.is_main:
            return
        classifier.save(
            folder,
            model,
            self.variant,
            self.hyperparameters,
            self.preprocessing,
            self.class_names,
            problem_type=trainer.task.problem_type,
            thresholds=thresholds,
        )

    def whole_model(self, model: keras.Model) -> keras.Model:
        """Returns a model whose weights are all on this machine, a copy if they are divided."""
        if not any(is_divided(variable.value) for variable in model.variables):
            return model
        values = [gather_value(variable) for variable in model.variables]
        with undistributed():
            whole = make_model(self.variant, self.hyperparameters, self.recipe, self.preprocessing)
            for variable, value in zip(whole.variables, values):
                variable.assign(value)
        return whole


def rehearse(ending, trainer):
    """Does everything that a run does at its end with its untrained model, and reads the model back.

    A run whose end would fail, fails here within seconds instead of after its training. Only a few test
    images are used, and the files go into a temporary folder inside the run's. Neither the model nor the
    state of any random generator changes.

    Args:
        ending: the run's `Ending`.
        trainer: a `Trainer` at the start of its run.

    Raises:
        ValueError: the end would fail, or the model that was read back differs.
        OSError: the disk is full, or the folder cannot be written to.
    """
    with (
        untouched_randomness(),
        tempfile.TemporaryDirectory(
            prefix=PARTIAL, suffix=".rehearsal", dir=trainer.folder, ignore_cleanup_errors=True
        ) as folder,
    ):
        try:
            shortened = replace(ending, test=ending.test.head(NUM_REHEARSED))
            copied = finished_copy(shortened, trainer)
            shortened.write(copied, Path(folder))
            written = shortened.whole_model(copied.model)
            if trainer.group.is_main:
                with undistributed():  # the other processes do not read it
                    check_model(shortened, copied.task, written, Path(folder) / "model")
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


def finished_copy(ending, trainer):
    """Returns a copy of an untrained trainer at the end of a run of one step.

    With LoRA, which is merged at the end, the copy has a model of its own.
    """
    copied = copy.copy(trainer)
    copied.load_best = copied.load_last = lambda: None
    copied.engine = copy.copy(trainer.engine)
    copied.engine.validation = trainer.engine.validation.head(NUM_REHEARSED)
    copied.started = time.perf_counter()
    copied.progress = Progress(step=1, images=1, train_seconds=1.0)
    copied.progress.totals = {"images": 1, "seconds": 1.0, "loss": 0.0, "accuracy": 0.0}
    _, targets = ending.test.batch(0, 0)
    row = copied.history_row(np.zeros_like(targets), targets)
    copied.progress.rows, copied.progress.best = [row], row
    if ending.recipe.lora_rank:
        recipe = ending.recipe
        copied.engine.model = make_model(ending.variant, ending.hyperparameters, recipe, ending.preprocessing)
        add_lora(copied.engine.model, recipe.lora_rank, recipe.lora_alpha, on=recipe.lora_targets.split(","))
    return copied


def check_model(ending, task, model, folder):
    """Raises a ValueError unless a model's folder gives a model again."""
    if ending.preprocessing is None:
        read = build_vit(weights=folder)
    else:
        read_classifier = classifier.load(folder)
        read = read_classifier.model
        if read_classifier.problem_type != task.problem_type:
            raise ValueError(f"the model's folder gives outputs of {read_classifier.problem_type}")
        if read_classifier.preprocessing != ending.preprocessing:
            raise ValueError(
                f"the model's folder gives {read_classifier.preprocessing}, not {ending.preprocessing}"
            )
    own, loaded = arrays_of(model), arrays_of(read)
    differing = [name for name in own | loaded if not np.array_equal(own.get(name), loaded.get(name))]
    if differing:
        raise ValueError(f"the model's folder gives other weights than were written: {listing(differing)}")


def arrays_of(model):
    """Returns the weights of a model of `build_vit` as a dict of arrays, by timm's names."""
    return {
        name: keras.ops.convert_to_numpy(entry.variable.value)
        for name, entry in weight_mappings(model).items()
    }
