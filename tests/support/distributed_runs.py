"""Trains a small ViT for 20 steps on real images, in each of several placements, and compares the weights.

    PYTHONPATH=.:tests python -m support.distributed_runs devices CASE:KIND...   # in one process, 4 devices
    PYTHONPATH=.:tests python -m support.distributed_runs process OUT KIND CASE...   # one of several

`devices` prints, as JSON, the largest difference of weights and logits from those of one device. `process`
writes the weights of process 0 to OUT/CASE.npz.
"""
# ruff: noqa: E402

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
NUM_DEVICES = 4
if __name__ == "__main__" and sys.argv[1] == "devices":
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={NUM_DEVICES}"
    )

import keras
import numpy as np

from vit_tf.data import DataLoader, load_cifar
from vit_tf.training import Recipe, configure, make_model, make_trainer
from vit_tf.training.augmentation import make_mix
from vit_tf.training.distribution.host_arrays import gather_value, is_divided
from vit_tf.training.distribution.placement import JaxDevices, OneDevice
from vit_tf.training.distribution.rendezvous import connect, find_rendezvous

TINY = dict(image_size=16, patch_size=4, patch_stem="patches", hidden_dim=16, num_layers=1, num_heads=4)
TINY |= dict(mlp_dim=32)
ALL = dict(clip_norm=0.5, ema=0.9, accumulation_steps=2, mixup=0.2, cutmix=0.5, layer_decay=0.8)
CASES = {
    "adamw": dict(optimizer="adamw", crop="pad", label_smoothing=0.1, **ALL),
    "muon": dict(optimizer="muon", crop="pad", **ALL),
    "sgd": dict(optimizer="sgd", crop="affine", class_weights="balanced", **ALL),
    "dropout": dict(optimizer="sgd", crop="none", dropout_rate=0.1, drop_path_rate=0.2),
    "sizes": dict(optimizer="adamw", crop="none", progressive_resizing="0.5,1"),
}
KINDS = {
    "one": OneDevice,
    "data": JaxDevices,
    "model": lambda: JaxDevices("model", 2),  # 2 copies on 2 devices each
    "model4": lambda: JaxDevices("model", 4),
}


def make(case, placement, folder, epochs=2):
    """Returns the trainer of a case: 10 steps per epoch, the last of 11 images."""
    recipe = Recipe(epochs=epochs, batch_size=16, learning_rate=1e-3, checkpoint_minutes=1e9, **CASES[case])
    recipe = configure(recipe)
    data = load_cifar("sample")
    images, labels = data.x_train[:155, 8:24, 8:24], data.y_train[:155]
    options = dict(seed=0, mix=make_mix(recipe), shuffle=True)
    train = DataLoader(images, labels, 10, recipe.batch_size, **options)
    validation = DataLoader(data.x_test[:37, 8:24, 8:24], data.y_test[:37], 10, 16)
    model = make_model("vit_cifar10", TINY, recipe)
    return make_trainer(model, recipe, train, validation, (16, 16), folder, placement=placement)


def trained(case, placement):
    """Returns weights, averages and moments after a run, and the logits, as a dict of arrays."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(case, placement, Path(folder))
        trainer.run()
    arrays = {}
    for group, variables in trainer.engine.variables.items():
        for i, variable in enumerate(variables):
            arrays[f"{group}/{i}"] = gather_value(variable)
    arrays["logits"] = trainer.engine.predict(trainer.engine.validation, flip_tta=True)[0]
    divided = [variable.path for variable in trainer.model.variables if is_divided(variable.value)]
    return arrays, divided


def difference(first, second):
    """Returns the largest difference between the arrays of two runs."""
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name].astype("float64")).max()) for name in first)


def compare_on_devices(pairs):
    results, one = {}, {}
    for pair in pairs:
        case, kind = pair.split(":")
        keras.distribution.set_distribution(None)
        if case not in one:
            one[case] = trained(case, OneDevice())[0]
        results[pair] = difference(one[case], trained(case, KINDS[kind]())[0])
    return results


def train_in_process(out, kind, cases):
    rendezvous = find_rendezvous()
    if not rendezvous.is_alone:
        connect(rendezvous)
    for case in cases:
        arrays, divided = trained(case, KINDS[kind]())
        if rendezvous.rank == 0:
            np.savez(out / f"{case}.npz", **{name.replace("/", "|"): x for name, x in arrays.items()})
            (out / f"{case}.json").write_text(json.dumps(divided))
    if not rendezvous.is_alone:
        import jax

        jax.distributed.shutdown()


if __name__ == "__main__":
    real_stdout, sys.stdout = sys.stdout, sys.stderr
    if sys.argv[1] == "devices":
        print(json.dumps(compare_on_devices(sys.argv[2:])), file=real_stdout)
    else:
        train_in_process(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
