"""Where a model has its parts, and how deep each weight lies."""

import keras
import numpy as np
import pytest
from support.distilled import DEPTHS, DISTILLED, TINY
from support.explained import small, some_images

import vit_tf
from vit_tf import build_vit, layers, training
from vit_tf.structure import ViTStructure, block_index, depth

pytestmark = pytest.mark.every_backend


def tiny_vit(**overrides):
    return build_vit("vit_cifar10", **{**TINY, **overrides})


def depths(model, **options):
    structure = ViTStructure(model, **options)
    return {variable.path: depth(variable.path, structure.num_blocks) for variable in model.weights}


def without_positions():
    """A model as those with rotary positions will be: no prefix tokens, no position table."""
    images = keras.Input((8, 12, 3))
    x = layers.PatchEmbedding(16, 4, name="patch_embedding")(images)
    block = build_vit("vit_ti16", **{**TINY, "hidden_dim": 16}).get_layer("block_0")
    x = block.from_config({**block.get_config(), "name": "block_0"})(x)
    x = layers.TokenPooling("avg", name="pooling")(x)
    return keras.Model(images, keras.layers.Dense(3, name="head")(x))


def test_parts_of_a_distilled_model():
    model = tiny_vit(**DISTILLED, num_registers=2, include_preprocessing=True, image_size=(8, 12))
    structure = ViTStructure(model)
    assert structure.stem is model.get_layer("patches")
    assert structure.patch_embedding is model.get_layer("patch_embedding")
    assert structure.patch_encoder is model.get_layer("patch_encoder")
    assert structure.normalization is model.get_layer("normalization")
    assert list(structure.blocks) == ["block_0", "block_1"] and structure.num_blocks == 2
    assert [x.name for x in structure.poolings] == ["pooling", "distillation_pooling"]
    assert [x.name for x in structure.heads] == ["head", "distillation_head"]
    assert {place: x.name for place, x in structure.norms.items()} == {"pre": "pre_norm", "final": "norm"}
    assert structure.grid_size == (2, 3) and structure.patch_size == (4, 4)
    assert structure.token_slices == {
        "class_token": slice(0, 1),
        "distillation_token": slice(1, 2),
        "register_tokens": slice(2, 4),
        "patches": slice(4, 10),
    }


def test_heads_of_ones_own_are_heads():
    model = tiny_vit(num_classes=0, final_norm="pooled")
    assert ViTStructure(model).heads == [] and "pooled" in ViTStructure(model).norms
    own = keras.layers.Dense(5, name="mine")
    model = keras.Model(model.input, own(model.output))
    assert ViTStructure(model).heads == [own]
    training.freeze(model, "backbone")
    assert {x.path for x in model.trainable_variables} == {"mine/kernel", "mine/bias"}
    training.freeze(model, "none")
    training.add_lora(model, 2, on="qkv")
    assert {"mine/kernel", "mine/bias"} < {x.path for x in model.trainable_variables}


def test_depths_are_timms():
    vit = tiny_vit(**DISTILLED)
    assert depths(vit) == {x.path: DEPTHS[x.path.partition("/")[0]] for x in vit.weights}
    pooled = depths(tiny_vit(pooling="map", final_norm="pooled"))
    assert pooled["pooled_norm/gamma"] == pooled["pooling/query/kernel"] == pooled["head/bias"] == 3
    around = keras.Sequential([vit, keras.layers.Dense(2, name="outer")])
    around.build((None, 8, 8, 3))
    assert depths(around, nested=True) == {**depths(vit), **{x.path: 3 for x in around.layers[-1].weights}}
    part = keras.Model(vit.get_layer("block_1").input, vit.output)
    assert depths(part).items() <= depths(vit).items()
    paths = ("block_12/mlp", "block_3", "norm", "my_block_1/x")
    assert [block_index(path) for path in paths] == [12, 3, None, None]


@pytest.mark.slow
def test_a_model_without_position_table():
    model = without_positions()
    structure = ViTStructure(model)
    assert structure.patch_encoder is None
    assert structure.token_slices == {"patches": slice(0, 6)} and structure.grid_size == (2, 3)
    assert set(depths(model).values()) == {0, 1, 2}
    images = some_images(model)
    assert vit_tf.attention_maps(model, images)["block_0"].shape == (2, 2, 6, 6)
    assert vit_tf.forward_features(model, images)["block_0"].shape == (2, 2, 3, 16)
    assert vit_tf.class_relevance(model, images, 1).max() > 0
    assert training.freeze(model, "backbone") == 16 * 3 + 3
    resized = vit_tf.resize_model(model, image_size=(12, 12))
    assert ViTStructure(resized).grid_size == (3, 3)
    np.testing.assert_array_equal(resized.get_layer("head").kernel, model.get_layer("head").kernel)
    with pytest.raises(ValueError, match="no position table"):
        vit_tf.position_similarity(model)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: "vit", "'str' has no encoder blocks: give a model of `build_vit`$"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), "no encoder blocks"),
        (lambda: keras.Sequential([small()]), r"`build_vit` itself, here `model.get_layer\(NAME\)`"),
        (lambda: vit_tf.load("cifar10"), "`build_vit`, here its `model`"),
    ],
)
def test_other_models(make, message):
    with pytest.raises(ValueError, match=message):
        ViTStructure(make())


@pytest.mark.tensorflow_only
def test_blocks_need_their_names_for_depths():
    images = keras.Input((4, 8))
    block = layers.EncoderBlock.from_config({**tiny_vit().get_layer("block_0").get_config(), "name": "first"})
    model = keras.Model(images, block(images))
    with pytest.raises(ValueError, match="no block with a name such as block_0"):
        training.make_optimizer(model, layer_decay=0.5)
    with pytest.raises(ValueError, match="no layer that cuts images into patches"):
        vit_tf.resize_model(model, image_size=16)
