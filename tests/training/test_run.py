import keras
import numpy as np
import pytest

from vit_tf import build_vit
from vit_tf.data import DataLoader
from vit_tf.data.augment import batch as augment
from vit_tf.data.augment.image import HorizontalFlip, RandomErasing, RandomResizedCrop
from vit_tf.preprocessing import Preprocessing
from vit_tf.training import Recipe, make_model, make_training_model
from vit_tf.training.augmentation import batch_augmentation, image_augmentation, make_mix
from vit_tf.training.tasks import balanced_weights
from vit_tf.weights import open_named, save_weights

pytestmark = pytest.mark.every_backend

SIZES = dict(image_size=8, patch_size=4, hidden_dim=8, num_layers=2, num_heads=2, mlp_dim=8, num_classes=3)


@pytest.mark.slow
def test_training_model_shares_weights_and_resizes():
    vit = build_vit("vit_cifar10", **SIZES)
    model = make_training_model(vit, (6, 10), [augment.RandomFlip(seed=1)])
    assert model.input_shape == (None, 6, 10, 3) and model.output_shape == (None, 3)
    assert [v.path for v in model.trainable_variables] == [v.path for v in vit.trainable_variables]
    x = np.random.default_rng(0).normal(size=(4, 6, 10, 3)).astype("float32")
    np.testing.assert_allclose(model(x), vit(keras.ops.image.resize(x, (8, 8), antialias=True)), atol=1e-5)
    assert np.abs(np.array(model(x, training=True)) - np.array(model(x))).max() > 1e-4
    same_size = make_training_model(vit, (8, 8))
    assert not any(isinstance(layer, augment.Resize) for layer in same_size.layers)


def test_network_drops_and_normalises_as_it_is_told():
    recipe = Recipe(drop_path_rate=0.3, dropout_rate=0.1)
    settings = Preprocessing(8, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    vit = make_model("vit_cifar10", SIZES, recipe, settings)
    assert vit.get_layer("block_1").config.drop_path_rate == 0.3
    assert vit.get_layer("block_1").config.dropout_rate == 0.1
    layer = vit.get_layer("normalization")
    pixels = np.array([25.5, 51, 76.5], "float32") + 255 * np.array([0.4, 0.5, 0.6], "float32")
    np.testing.assert_allclose(layer(pixels[None, None, None]), np.ones((1, 1, 1, 3)), atol=1e-5)


def test_classes_of_any_size_weigh_the_same():
    labels = np.repeat([0, 1, 3], [6, 3, 1])  # none of class 2
    weights = balanced_weights(DataLoader(np.zeros((10, 2, 2, 3), "uint8"), labels, 4, 5))
    totals = np.bincount(labels, weights[labels], minlength=4)
    np.testing.assert_allclose(totals, [10 / 3, 10 / 3, 0, 10 / 3], rtol=1e-6)


@pytest.mark.parametrize(
    "settings, of_pictures, in_graph",
    [
        (dict(), [RandomResizedCrop, HorizontalFlip], []),
        (dict(crop="none", flip=False), None, []),
        (dict(crop="none", random_erasing=0.5), [HorizontalFlip, RandomErasing], []),
        (dict(crop="pad"), None, [augment.RandomFlip, augment.RandomCrop]),
        (dict(crop="affine", flip=False), None, [augment.RandomAffine]),
        (
            dict(crop="pad", random_erasing=0.5),
            None,
            [augment.RandomFlip, augment.RandomCrop, augment.RandomErasing],
        ),
    ],
)
def test_each_augmentation_happens_once(settings, of_pictures, in_graph):
    recipe = Recipe(**settings)
    chosen = image_augmentation(recipe, (8, 8))
    assert (chosen and [type(step) for step in chosen.transforms]) == of_pictures
    assert [type(layer) for layer in batch_augmentation(recipe, (8, 8))] == in_graph


def test_mixing_is_asked_for():
    assert make_mix(Recipe()) is None
    images, labels = np.zeros((2, 8, 8, 3), "uint8"), np.eye(2, dtype="float32")
    _, mixed = make_mix(Recipe(mixup=1.0))(images, labels, np.random.default_rng(0))
    assert 0 < mixed[0, 0] < 1


@pytest.mark.slow
def test_a_new_head_starts_at_zero_and_a_known_one_is_kept(tmp_path):
    weights = save_weights(build_vit("vit_cifar10", **SIZES), tmp_path / "model.safetensors")
    source = open_named(weights, "vit_cifar10")
    kept, new = (
        make_model("vit_cifar10", SIZES, Recipe(), weights=x) for x in (source, source.without_head())
    )
    assert np.abs(kept.get_layer("head").get_weights()[0]).max() > 0
    assert all(not x.any() for x in new.get_layer("head").get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    backbones = [keras.Model(x.input, x.get_layer("head").input)(images) for x in (kept, new)]
    np.testing.assert_array_equal(*backbones)
    assert np.abs(make_model("vit_cifar10", SIZES, Recipe()).get_layer("head").get_weights()[0]).max() > 0
