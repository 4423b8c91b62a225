"""The model and the recipe of `vit-tf train --preset tutorial`."""

from pathlib import Path

import numpy as np

from contestants import Built
from contestants.tutorial import NUM_CLASSES, random_data, untuned_batches
from vit_tf import data, training


def build(job, own_loop=False):
    (batch_size,) = job.batch_sizes
    recipe = training.get_recipe(
        "tutorial", batch_size=batch_size, mixed_precision=job.precision == "bfloat16"
    )
    training.configure(recipe)
    images, labels = random_data(job.batches * batch_size)
    batches = data.DataLoader(images, labels, NUM_CLASSES, batch_size, shuffle=True)
    variant = training.PRESETS["tutorial"].variant
    model = training.make_model(variant, {"num_classes": NUM_CLASSES, "in_channels": 3}, recipe)
    trainer = training.make_trainer(
        model,
        recipe,
        batches,
        batches,
        images.shape[1:3],
        Path("not-written"),  # only `Trainer.run` writes
    )
    one_hot = np.eye(NUM_CLASSES, dtype="float32")[labels]
    for_fit = untuned_batches(images, one_hot, batch_size)

    def loop():
        epoch = trainer.progress.epoch
        for trained in trainer.engine.train(epoch, 0, trainer.next_steps):
            trainer.count(trained, 0.0)
        trainer.progress.epoch += 1

    def fit():
        trainer.engine.training_model.fit(for_fit, shuffle=False, verbose=0)

    return Built(lambda _: loop if own_loop else fit, model.count_params())
