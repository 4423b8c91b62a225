"""Training on several devices of one host, which must have the results of one device."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from support.paths import ROOT, TESTS

from vit_tf import build_vit
from vit_tf.data.augment.batch import RandomAffine
from vit_tf.training import Recipe
from vit_tf.training.loop.engines import check_exact_on_parts

if keras.backend.backend() != "tensorflow":
    pytest.skip("this is about TensorFlow", allow_module_level=True)

import tensorflow as tf
from support.mirrored_runs import CASES, REPRESENTATIVES

from vit_tf.training.loop.engines import mirrored_batch

SIZES = dict(image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=3)


def run(folder, *names):
    """Returns the report of `support.mirrored_runs`."""
    path = os.pathsep.join([str(ROOT), str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "support.mirrored_runs", folder, *names],
        env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def representatives(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs"), *REPRESENTATIVES, "resume")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs"), *(name for name in CASES if name not in REPRESENTATIVES))


def check_equal(report):
    """The differences are of float32 sums in another order. Weights move by more than 1e-3."""
    report = dict(report)
    assert report.pop("moved") > 1e-3 and report.pop("images") == 0
    assert report.pop("key biases") < 1e-4  # see `support.mirrored_runs.difference`
    assert max(report.values()) < 1e-5, report


@pytest.mark.slow
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_two_devices_are_one(name, representatives):
    check_equal(representatives[name])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in CASES if name not in REPRESENTATIVES])
def test_two_devices_are_one_with_each_option(name, others):
    check_equal(others[name])


@pytest.mark.slow
def test_a_run_moves_between_one_device_and_two(representatives):
    report = representatives["resume"]
    assert report.pop("epochs") == 4
    assert max(report.values()) < 1e-5, report  # key biases, too


def test_runs_that_depend_on_the_parts_are_refused():
    check_exact_on_parts(Recipe(mixup=1.0, crop="pad"), "whitened")
    with pytest.raises(ValueError, match="batch normalisation of patch_stem='pooled': start .*=jax"):
        check_exact_on_parts(Recipe(), "pooled")
    with pytest.raises(ValueError, match="--drop-path-rate, got 0.1: start .* KERAS_BACKEND=jax"):
        check_exact_on_parts(Recipe(drop_path_rate=0.1))


def test_models_that_cannot_be_exact_are_refused():
    mirrored_batch.check_exact(build_vit("vit_cifar10", **SIZES))
    for rate in ("drop_path_rate", "dropout_rate", "attention_dropout_rate"):
        sizes = {**SIZES, "num_layers": 2}  # the first block drops no path
        with pytest.raises(ValueError, match="the layer .*drop.* draws random numbers.*KERAS_BACKEND=jax"):
            mirrored_batch.check_exact(build_vit("vit_cifar10", **sizes, **{rate: 0.1}))
    network = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(name="norm")])
    with pytest.raises(ValueError, match="the layer .*norm: it normalizes by the mean of a batch"):
        mirrored_batch.check_exact(network)
    network.trainable = False
    mirrored_batch.check_exact(network)
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    network.dtype_policy = keras.DTypePolicy("mixed_float16")
    with pytest.raises(ValueError, match="float16.*bfloat16"):
        mirrored_batch.check_exact(network)


def test_models_of_one_device_are_refused():
    model = build_vit("vit_cifar10", **SIZES)
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="the scope of"):
        mirrored_batch.MirroredEngine(model, model, None, None)


def test_strategy_has_the_devices_of_the_host():
    strategy = mirrored_batch.mirrored_strategy()
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    names = mirrored_batch.mirrored_devices()
    assert strategy.num_replicas_in_sync == len(names) == len(tf.config.list_logical_devices())


def test_xla_compiles_what_it_can():
    model = build_vit("vit_cifar10", **SIZES)
    assert mirrored_batch.supports_xla(model)
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, RandomAffine()(images))
    assert not mirrored_batch.supports_xla(model)


def test_loss_of_images_has_the_mean_of_the_loss():
    targets, logits = np.eye(3, dtype="float32")[[0, 2]], np.array([[1, 2, 3], [0, 1, 0]], "float32")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    values = mirrored_batch.loss_of_images(loss)(targets, logits)
    assert values.shape == (2,)
    np.testing.assert_allclose(np.mean(values), loss(targets, logits), rtol=1e-6)
