import os
import sys

import keras
import pytest

from vit_tf.training import Recipe
from vit_tf.training.distribution.choose import choose_backend, choose_placement
from vit_tf.training.distribution.placement import OneDevice
from vit_tf.training.distribution.rendezvous import Rendezvous
from vit_tf.training.loop.engines import mirrored_batch

TWO = Rendezvous("host:1", 2, 0)


@pytest.fixture
def no_keras(monkeypatch):
    """As at the start of a command."""
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "")  # so that the variable is restored in any case
    monkeypatch.delenv("KERAS_BACKEND")


@pytest.mark.parametrize(
    "distribute, rendezvous, backend",
    [
        ("auto", Rendezvous(), None),
        ("data", Rendezvous(), None),
        ("model", Rendezvous(), "jax"),
        ("auto", TWO, "jax"),
    ],
)
def test_backend(no_keras, distribute, rendezvous, backend):
    choose_backend(distribute, rendezvous)
    assert os.environ.get("KERAS_BACKEND") == backend


@pytest.mark.parametrize(
    "distribute, rendezvous, engine, backend, message",
    [
        (
            "auto",
            TWO,
            "train-batch",
            "tensorflow",
            "JAX is needed for several processes, got KERAS",
        ),
        ("model", Rendezvous(), "train-batch", "torch", "JAX is needed for --distribute model"),
        ("none", TWO, "train-batch", "jax", "several processes cannot be combined with --distribute none"),
        ("data", Rendezvous(), "compiled-epoch", "jax", "--engine compiled-epoch computes on one device"),
        ("auto", TWO, "compiled-epoch", "jax", "--engine compiled-epoch computes on one device"),
    ],
)
def test_backends_that_do_not_fit(no_keras, monkeypatch, distribute, rendezvous, engine, backend, message):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    with pytest.raises(ValueError, match=message):
        choose_backend(distribute, rendezvous, engine)


def test_jax_is_missing(no_keras, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="JAX is needed for several processes: pip install"):
        choose_backend("auto", TWO)


@pytest.mark.parametrize("distribute, engine", [("none", "train-batch"), ("auto", "compiled-epoch")])
def test_one_device(distribute, engine):
    assert type(choose_placement(distribute, Recipe(), engine=engine)) is OneDevice


@pytest.mark.parametrize(
    "recipe, options, message",
    [
        ({}, {"distribute": "data", "model_devices": 2}, "--model-devices goes with --distribute model"),
        ({"lora_rank": 2}, {"distribute": "model"}, "--distribute model does not support LoRA"),
    ],
)
def test_options_that_do_not_fit(recipe, options, message):
    with pytest.raises(ValueError, match=message):
        choose_placement(recipe=Recipe(**recipe), **options)


@pytest.mark.tensorflow_only
def test_a_run_that_cannot_be_divided_uses_one_device(monkeypatch, capsys):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(mirrored_batch, "mirrored_devices", lambda: ["a", "b"])
    assert type(choose_placement("auto", Recipe(), stem="pooled")) is OneDevice
    assert "this run uses one of 2 devices: several devices on TensorFlow do not" in capsys.readouterr().out
    with pytest.raises(ValueError, match="do not support the batch normalisation of patch_stem='pooled'"):
        choose_placement("data", Recipe(), stem="pooled")


def test_pytorch_has_one_device(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert type(choose_placement("auto", Recipe())) is OneDevice
    with pytest.raises(ValueError, match="--distribute data needs Keras on JAX or TensorFlow, got 'torch'"):
        choose_placement("data", Recipe())
