import keras
import numpy as np
import pytest
from conftest import randomize

import vit_tf
from vit_tf import build_vit
from vit_tf.data import DataLoader
from vit_tf.training import Recipe, Trainer, make_trainer
from vit_tf.training.recipes import parse_resolutions
from vit_tf.training.resolution import scaled_size, with_image_size

SIZES = dict(
    image_size=(16, 24), patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=3
)


def small_vit(**overrides):
    return randomize(build_vit("vit_cifar10", **{**SIZES, **overrides}))


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        dict(class_token=True, num_registers=2),
        dict(class_token=True, prefix_positions=False),
        dict(class_token=True, rotary=dict(kind="mixed")),
        dict(num_registers=2, rotary=dict(kind="dinov3"), position_table=False),
    ],
    ids=["patches", "prefix", "prefix without positions", "mixed rotary", "rotary alone"],
)
def test_equals_a_model_with_resized_positions(overrides):
    model = small_vit(**overrides)
    small = with_image_size(model, (8, 20))
    resized = vit_tf.resize_model(model, (8, 20))
    images = random(2, 8, 20, 3)
    # the same matrices, in float32 here and in float64 there
    np.testing.assert_allclose(small(images), resized(images), rtol=0, atol=1e-5)
    assert all(a is b for a, b in zip(small.trainable_variables, model.trainable_variables, strict=True))
    assert with_image_size(model, (16, 24)) is model


def test_relative_positions_have_one_grid():
    model = small_vit(relative_positions=True, position_table=False)
    assert with_image_size(model, (16, 24)) is model
    with pytest.raises(ValueError, match="has relative positions.*set progressive_resizing to none"):
        with_image_size(model, (8, 20))


@pytest.mark.slow
def test_positions_learn_at_a_smaller_size():
    model = small_vit()
    small = with_image_size(model, (8, 12))
    small.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    variable = model.get_layer("patch_encoder").position_embedding
    before = np.array(variable)
    small.train_on_batch(random(4, 8, 12, 3), np.array([0, 1, 2, 0]))
    assert (np.abs(np.array(variable) - before).max(axis=-1) > 0).all()


@pytest.mark.parametrize(
    "share, expected", [(1, (16, 24)), (0.5, (8, 12)), (0.6, (8, 16)), (0.01, (4, 4)), (0.8, (12, 20))]
)
def test_shares_are_rounded_to_patches(share, expected):
    assert scaled_size(small_vit(), share) == expected


def test_shares():
    assert parse_resolutions("none") == [] and parse_resolutions("0.5,1") == [0.5, 1.0]


@pytest.mark.parametrize("text", ["", "0.5;1", "0,1", "1.5", "-1", "nan", "half"])
def test_bad_shares(text):
    with pytest.raises(ValueError, match="fractions of the image's side in"):
        Recipe(progressive_resizing=text)


@pytest.mark.slow
def test_a_run_trains_at_each_size_in_turn(tmp_path, monkeypatch):
    images, labels = random(24, 16, 24, 3), np.arange(24) % 3
    batches = DataLoader(images, labels, 3, 4)
    sizes = []
    recipe = Recipe(epochs=1, progressive_resizing="0.5,1,0.5", crop="none", flip=False)
    trainer = make_trainer(small_vit(), recipe, batches, batches, (16, 24), tmp_path)
    for model in set(trainer.engine.resolution_models):
        size = model.layers[-1].input_shape[1:3] if hasattr(model.layers[-1], "input_shape") else None
        step = model.train_on_batch

        def record(*args, step=step, size=size, **kwargs):
            sizes.append(size)
            return step(*args, **kwargs)

        monkeypatch.setattr(model, "train_on_batch", record)
    assert isinstance(trainer, Trainer)
    trainer.run()
    assert sizes == [(8, 12)] * 2 + [(16, 24)] * 2 + [(8, 12)] * 2
