"""Training on two logical CPUs against one: `python -m support.mirrored_runs FOLDER CASE...` prints JSON.

It is a process of its own, because the number of devices is fixed when TensorFlow starts.
"""

import json
import re
import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from vit_tf.data import DataLoader, load_cifar
from vit_tf.training import Recipe, make_model, make_optimizer
from vit_tf.training.augmentation import make_mix
from vit_tf.training.freezing import freeze
from vit_tf.training.loop.checkpoints import from_arrays, to_arrays
from vit_tf.training.loop.engines.mirrored_batch import MirroredEngine, mirrored_strategy
from vit_tf.training.loop.interrupts import Interrupted
from vit_tf.training.loop.trainer import Trainer
from vit_tf.training.lora import add_lora
from vit_tf.training.run import make_train_batch_engine
from vit_tf.training.schedules import recipe_schedule
from vit_tf.training.tasks import TASKS

SIZES = dict(
    patch_size=8,
    patch_stem="patches",
    activation="gelu",
    hidden_dim=24,
    num_layers=1,
    num_heads=2,
    mlp_dim=48,
    num_classes=10,
)
NUM_IMAGES, STEPS = 70, 20  # 5 batches of 14 per epoch
RECIPE = Recipe(batch_size=14, learning_rate=3e-4, crop="none", flip=False, epochs=STEPS * 14 // NUM_IMAGES)
ALL = dict(clip_norm=0.5, ema=0.9, accumulation_steps=2, layer_decay=0.8, label_smoothing=0.1, mixup=0.5)
BALANCED = dict(class_weights="balanced", label_smoothing=0.1)
SGD = dict(optimizer="sgd", learning_rate=1e-2)
# Settings of the recipe, and arguments of `make_engine`. The first ones are representatives.
CASES = {
    "adamw, all": dict(**ALL, class_weights="balanced", crop="pad", flip=True, batch_size=15),
    "sgd, all": dict(**SGD, **ALL),
    "muon, all": dict(optimizer="muon", **ALL),
    "adamw": dict(),
    "sgd": SGD,
    "muon": dict(optimizer="muon"),
    "clip_norm": dict(clip_norm=0.1),
    "accumulation": dict(accumulation_steps=2),
    "accumulation and clip_norm": dict(accumulation_steps=3, clip_norm=0.1),
    "ema": dict(ema=0.9),
    "mixing": dict(mixup=0.5, cutmix=1.0),
    "layer_decay": dict(layer_decay=0.7),
    "class_weights": BALANCED,
    "multi-label": dict(task="multi-label", **BALANCED),
    "pad": dict(crop="pad", flip=True),
    "affine": dict(crop="affine", flip=True),
    "last batch": dict(batch_size=23),  # the last of an epoch has one image
    "progressive": dict(progressive_resizing="0.5,1"),
    "frozen": dict(freeze="blocks:1"),
    "lora": dict(lora_rank=2),
    "remat": dict(remat=True),
    "xla": dict(jit_compile=True),
}
REPRESENTATIVES = list(CASES)[:1]


def make_engine(recipe, num_devices, task="single-label", **options):
    """Returns the engine of a recipe on one device or on two, at the start of its run."""
    scope = mirrored_strategy().scope() if num_devices > 1 else nullcontext()
    keras.utils.set_random_seed(recipe.seed)
    task = TASKS[task]
    with scope:
        model = make_model("vit_cifar10", SIZES, recipe)
        if recipe.lora_rank:
            add_lora(model, recipe.lora_rank, on=recipe.lora_targets.split(","))
        else:
            freeze(model, recipe.freeze)
        names = "learning_rate weight_decay layer_decay momentum clip_norm accumulation_steps ema".split()
        optimizer = make_optimizer(model, recipe.optimizer, **{name: getattr(recipe, name) for name in names})
        engine = {} if num_devices == 1 else {"engine": partial(MirroredEngine, task=task, **options)}
        loaders = [loader(recipe, task, is_train) for is_train in (True, False)]
        return make_train_batch_engine(model, recipe, optimizer, *loaders, (32, 32), task, **engine)


def loader(recipe, task, is_train):
    data = load_cifar("sample")
    images, labels = (data.x_train, data.y_train) if is_train else (data.x_test, data.y_test)
    images, labels = images[:NUM_IMAGES], labels[:NUM_IMAGES]
    if task.name == "multi-label":
        labels = np.eye(10, dtype=bool)[labels] | np.eye(10, dtype=bool)[(labels + 3) % 10]
    if not is_train:
        return DataLoader(images[:33], labels[:33], 10, 11)
    return DataLoader(images, labels, 10, recipe.batch_size, mix=make_mix(recipe), shuffle=True)


def train(engine, start=0, stop=STEPS):
    """Trains from one step to another; returns the logs of each step."""
    logs, rate, per_epoch = (
        [],
        float(keras.ops.convert_to_numpy(engine.optimizer.learning_rate)),
        len(engine.loader),
    )

    def steps(count):
        return np.array([start / STEPS]), np.array([rate])

    while start < stop:
        for trained in engine.train(start // per_epoch, start % per_epoch, steps):
            logs.append([trained.logs["loss"], trained.logs["accuracy"], trained.images])
            start += 1
            if start == stop:
                break
    return np.array(logs)


def state(engine):
    """Returns all arrays of a run: the state, the weights to evaluate, and the validation's logits."""
    logits, targets = engine.validate()
    predicted, _ = engine.predict(engine.validation, flip_tta=True)
    arrays = {**to_arrays(engine.variables), **engine.evaluated_weights()}
    return {**arrays, "logits": logits, "targets": targets, "predicted": predicted}


def difference(ours, theirs):
    """Returns the largest difference of each group of arrays; both have the same names.

    Biases of keys are a group of their own: the softmax removes them, so that their gradients are nothing but
    rounding, which Adam divides by their own size.
    """
    assert list(ours) == list(theirs), sorted(set(ours) ^ set(theirs))
    largest: dict[str, float] = {}
    for name, array in ours.items():
        assert array.shape == theirs[name].shape and array.dtype == theirs[name].dtype, name
        differences = np.abs(array.astype("float64") - theirs[name])
        parts = {name.partition("/")[0]: differences}
        if re.search("qkv[_/]bias", name):
            query, key, value = np.split(differences, 3)
            parts = {name.partition("/")[0]: np.concatenate([query, value]), "key biases": key}
        for group, values in parts.items():
            largest[group] = max(largest.get(group, 0.0), float(values.max(initial=0)))
    return largest


def compare(jit_compile=False, task="single-label", **settings):
    """Returns the differences between a run on two devices and on one."""
    runs = [
        make_engine(replace(RECIPE, **settings), number, task, jit_compile=jit_compile) for number in (2, 1)
    ]
    start = to_arrays({"model": runs[1].training_model.variables})
    from_arrays({"model": runs[0].training_model.variables}, start)
    logs = [train(engine) for engine in runs]
    states = [state(engine) for engine in runs]
    weights = {name: array for name, array in start.items() if array.dtype.kind == "f"}
    return {
        **difference(*states),
        "loss": float(np.abs(logs[0] - logs[1])[:, 0].max()),
        "accuracy": float(np.abs(logs[0] - logs[1])[:, 1].max()),
        "images": int(np.abs(logs[0] - logs[1])[:, 2].max()),
        "moved": difference(weights, {name: states[1][name] for name in weights})["model"],
    }


def resume(folder):
    """Returns the differences between a run on one device and one that goes on with two, then again with one.

    It is stopped within an epoch and within an accumulation.
    """
    recipe = replace(RECIPE, **ALL, crop="pad", flip=True)
    whole = make_trainer(recipe, folder / "whole", 1)
    whole.run()
    for num_devices, stop in ((1, 7), (2, 13), (1, None)):
        trainer = make_trainer(recipe, folder / "moved", num_devices, stop)
        trainer.resume()
        with suppress(Interrupted):
            trainer.run()
    for own in (whole, trainer):
        own.load_best()
    rows = [
        [{name: row[name] for name in row if "second" not in name} for row in own.progress.rows]
        for own in (whole, trainer)
    ]
    pairs = [(a[name], b[name]) for a, b in zip(*rows) for name in a]
    arrays = [{**state(own.engine), **own.best_weights} for own in (whole, trainer)]
    names = [list(map(list, own)) for own in rows]
    assert names[0] == names[1] and whole.progress.images == trainer.progress.images
    return {**difference(*arrays), "history": max(abs(a - b) for a, b in pairs), "epochs": len(rows[1])}


def make_trainer(recipe, folder, num_devices, stop=None):
    """Returns a `Trainer` that is interrupted after step `stop` of the run."""
    engine = make_engine(recipe, num_devices)
    trainer = Trainer(engine, recipe_schedule(recipe), folder, label_smoothing=recipe.label_smoothing)
    count = trainer.count

    def count_and_stop(*args):
        count(*args)
        trainer.interrupts.requested = trainer.progress.step == stop

    trainer.count = count_and_stop
    return trainer


def main(folder, names):
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    report = {name: resume(Path(folder)) if name == "resume" else compare(**CASES[name]) for name in names}
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
