"""One run of the CIFAR-10 recipe with an idea for which `vit-tf train` has no setting.

    python benchmarks/recipe_ideas.py lookahead --data cifar10.npz --minutes 10 --out runs/lookahead

`benchmarks/ablation.py` runs this and compares the ideas with the recipe. An idea gets a setting if it
improves the recipe. A run can be interrupted as those of `vit-tf train`, and the same command resumes it; of
the result it writes metrics.json alone, with the accuracy on the validation images.
"""

import argparse
import os
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from keras import ops

from vit_tf import files
from vit_tf.checks import listing, require
from vit_tf.commands import parser as cli
from vit_tf.predictions import probabilities
from vit_tf.preprocessing import get_preprocessing
from vit_tf.structure import HEADS
from vit_tf.training.datasets import ArrayDataset, open_dataset
from vit_tf.training.loop.engines.train_batch import TrainBatchEngine, Trained
from vit_tf.training.loop.trainer import Trainer
from vit_tf.training.optimizers import Muon, own_options
from vit_tf.training.presets import TRAINING, get_recipe
from vit_tf.training.recipes import override
from vit_tf.training.run import adapt_stem, configure, make_model, make_train_batch_engine, run_training
from vit_tf.training.schedules import recipe_schedule
from vit_tf.training.tasks import SINGLE_LABEL


# ---------------------------------------------------------------------------------------------------
# Optimizers
# ---------------------------------------------------------------------------------------------------
class Lookahead(Muon):
    """Muon with slow weights: every 5 steps they go half of the way to the weights, which restart there.

    Zhang et al. 2019, https://arxiv.org/abs/1907.08610.
    """

    period = 5

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.slow = self.add_optimizer_variables(variables, "slow")

    def update_step(self, gradient, variable, learning_rate):
        slow = self.slow[self._get_variable_index(variable)]
        is_first = ops.equal(self.iterations, 0)
        start = ops.where(is_first, variable, slow)  # weights before the first step
        super().update_step(gradient, variable, learning_rate)
        is_due = ops.equal((self.iterations + 1) % self.period, 0)
        self.assign(slow, ops.where(is_due, (start + variable) / 2, start))
        self.assign(variable, ops.where(is_due, slow, variable))


class StemRate(Muon):
    """Muon with another learning rate for the convolutions of the stem.

    Args:
        stem_factor: float, on the steps of these convolutions.
        **kwargs: of `Muon`.
    """

    def __init__(self, *args, stem_factor, **kwargs):
        super().__init__(*args, **kwargs)
        self.stem_factor = stem_factor

    def lr_adjust(self, x):
        return super().lr_adjust(x) * (1.0 if len(x.shape) == 2 else self.stem_factor)


class FreeHead(Muon):
    """Muon without weight decay of the head."""

    def is_decayed(self, variable):
        return super().is_decayed(variable) and variable.path.split("/")[0] not in HEADS


# ---------------------------------------------------------------------------------------------------
# Engines
# ---------------------------------------------------------------------------------------------------
class AlternatingFlips(TrainBatchEngine):
    """Mirrors half of the images in the first epoch, and then each image in every second epoch.

    Jordan 2024, https://arxiv.org/abs/2404.00498, section 3.6. Whoever uses it sets `flip` to False.
    """

    def train(self, epoch, start, steps):
        size, count = self.loader.batch_size, self.loader.num_images
        is_first_mirrored = np.random.default_rng(self.loader.seed).random(count) < 0.5
        is_mirrored = (is_first_mirrored ^ bool(epoch % 2))[self.loader.order(epoch)]
        with closing(self.loader.epoch(epoch, start)) as batches:
            for index, (images, labels) in enumerate(batches, start):
                rows = is_mirrored[index * size : (index + 1) * size, None, None, None]
                images = np.where(rows, images[:, :, ::-1], images)
                yield self.train_step(images, labels, *(values[0] for values in steps(1)))


class GrowingBatches(TrainBatchEngine):
    """Takes two steps per batch in the first half of a run, each with half of its images.

    Their rate is smaller by the root of two. Smith et al. 2018, https://arxiv.org/abs/1711.00489.
    """

    def train_step(self, images, labels, fraction, rate):
        parts = 2 if fraction < 0.5 and len(images) > 1 else 1
        batches = zip(np.array_split(images, parts), np.array_split(labels, parts))
        train_step, rate = super().train_step, rate / parts**0.5
        steps = [train_step(*pair, fraction, rate) for pair in batches]
        logs = {name: np.mean([step.logs[name] for step in steps]).item() for name in steps[0].logs}
        return Trained(1, len(images), logs)


class HardImages(TrainBatchEngine):
    """Trains, in the second half of a run, on that half of each batch that has the larger losses.

    The losses are of the images as they are, by the present weights. Jiang et al. 2019,
    https://arxiv.org/abs/1910.00762.
    """

    def train_step(self, images, labels, fraction, rate):
        if fraction >= 0.5:
            of_classes = probabilities(self.training_model.predict_on_batch(images), "softmax")
            of_labels = (of_classes * labels).sum(axis=1)
            hardest = np.sort(np.argsort(of_labels)[: -(-len(images) // 2)])
            images, labels = images[hardest], labels[hardest]
        return super().train_step(images, labels, fraction, rate)


# ---------------------------------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Idea:
    """What differs from the recipe.

    Args:
        optimizer: `Muon` or a subclass.
        options: dict, arguments of the optimizer.
        engine: `TrainBatchEngine` or a subclass.
        settings: dict, fields of the `Recipe`.
    """

    optimizer: type = Muon
    options: dict = field(default_factory=dict)
    engine: type = TrainBatchEngine
    settings: dict = field(default_factory=dict)


IDEAS = {
    "lookahead": Idea(Lookahead),
    "muon-steps": Idea(options={"ns_steps": 3}),
    "slow-stem": Idea(StemRate, {"stem_factor": 0.5}),
    "fast-stem": Idea(StemRate, {"stem_factor": 2.0}),
    "slow-adam": Idea(options={"adam_lr_ratio": 0.5}),
    "fast-adam": Idea(options={"adam_lr_ratio": 2.0}),
    "free-head": Idea(FreeHead),
    "growing-batches": Idea(engine=GrowingBatches, settings={"batch_size": 512, "learning_rate": 6e-3}),
    "alternating-flips": Idea(engine=AlternatingFlips, settings={"flip": False}),
    "hard-images": Idea(engine=HardImages),
}


def main(arguments=None):
    args = parse_arguments(arguments)
    require_same_run(args)
    idea = IDEAS[args.idea]
    recipe = override(get_recipe("default"), {**idea.settings, "minutes": args.minutes, "seed": args.seed})
    recipe = configure(recipe)
    trainer = make_trainer(idea, recipe, args)
    args.out.mkdir(parents=True, exist_ok=True)
    files.write_json(args.out / "config.json", description(args))
    if not run_training(trainer, args.out, resuming="with the same command"):
        return 130
    progress = trainer.progress
    metrics = {
        "idea": args.idea,
        "validation_accuracy": progress.best["val_accuracy"],
        "epochs": round(progress.step / trainer.engine.steps_per_epoch, 2),
        "seconds": progress.rows[-1]["seconds"],
        "images_per_second": round(progress.images / progress.train_seconds, 1),
    }
    files.write_json(args.out / "metrics.json", metrics)
    print(f"validation accuracy {metrics['validation_accuracy']:.2%}, {metrics['epochs']} epochs")


def parse_arguments(arguments):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("idea", choices=IDEAS, metavar="IDEA", help=f"one of {', '.join(IDEAS)}")
    parser.add_argument("--data", required=True, help="arrays of colour images, see `vit-tf train`")
    parser.add_argument("--variant", default=TRAINING["default"].variant, help="(%(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training (10)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder; a run in it is continued")
    return parser.parse_args(arguments)


def require_same_run(args):
    """Raises a ValueError if the folder has a run with other arguments."""
    path, own = args.out / "config.json", description(args)
    if path.is_file():
        saved = files.read_json(path)
        differing = [name for name in own if saved.get(name) != own[name]]
        require(not differing, f"{args.out} has a run with another {listing(differing)}: name another folder")


def description(args):
    """Returns what the run's config.json holds: the arguments but the folder, which may be moved."""
    return {**vars(args), "out": None}


def make_trainer(idea, recipe, args):
    """Returns the `Trainer` of the recipe with an idea, as `vit-tf train` would make that of the recipe."""
    dataset = open_dataset(args.data)
    if not isinstance(dataset, ArrayDataset) or dataset.channels != 3:
        raise ValueError(f"expected arrays of images with 3 channels, such as cifar10.npz, got {args.data!r}")
    dataset.split({"validation_fraction": 0.1}, recipe, args.out, is_new=True)
    preprocessing = get_preprocessing(args.variant)
    hyperparameters = {"num_classes": len(dataset.class_names)}
    model = make_model(args.variant, hyperparameters, recipe, preprocessing)
    adapt_stem(model, lambda: dataset.first_images(2000, preprocessing))
    options = {**own_options("muon", model, recipe.momentum), **idea.options}
    optimizer = idea.optimizer(recipe.learning_rate, weight_decay=recipe.weight_decay, **options)
    loaders = dataset.loaders(recipe, "train-batch", SINGLE_LABEL, preprocessing)
    data = loaders["train"], loaders["validation"], dataset.image_size, SINGLE_LABEL
    engine = make_train_batch_engine(model, recipe, optimizer, *data, engine=idea.engine)
    return Trainer(
        engine,
        recipe_schedule(recipe),
        args.out,
        label_smoothing=recipe.label_smoothing,
        monitor=recipe.monitor,
    )


if __name__ == "__main__":
    cli.run(main)
