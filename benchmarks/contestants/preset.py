"""The tutorial's model and recipe as `scripts/train_cifar10.py --preset tutorial` has them."""

import importlib.util
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from contestants import Built
from contestants.tutorial import NUM_CLASSES, random_data
from vit_tf import data, training

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_cifar10.py"


def preset():
    """Returns the script's variant and recipe."""
    spec = importlib.util.spec_from_file_location("train_cifar10", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.PRESETS["tutorial"]


def build(job, own_loop=False):
    variant, recipe = preset()
    (batch_size,) = job.batch_sizes
    recipe = replace(recipe, batch_size=batch_size, mixed_precision=job.precision == "bfloat16")
    training.configure(recipe)
    images, labels = random_data(job.batches * batch_size)
    batches = data.DataLoader(images, labels, NUM_CLASSES, batch_size, shuffle=True)
    network = training.make_network(variant, {"num_classes": NUM_CLASSES, "in_channels": 3}, recipe)
    trainer = training.make_trainer(
        network,
        recipe,
        batches,
        batches,
        images.shape[1:3],
        Path("not-written"),  # only `Trainer.run` writes
    )
    one_hot = np.eye(NUM_CLASSES, dtype="float32")[labels]

    def loop():
        for batch in batches.epoch(trainer.progress.epoch):
            trainer.train_step(*batch)
        trainer.progress.epoch += 1

    def fit():
        trainer.model.fit(images, one_hot, batch_size, verbose=0)

    trainer.started = time.perf_counter()  # as `Trainer.run` does
    return Built(lambda _: loop if own_loop else fit, network.count_params())
