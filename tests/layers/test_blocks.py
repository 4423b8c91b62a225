import keras
import numpy as np
import pytest
from keras import ops
from support.layer_cases import TOKENS, random

from vit_tf import build_vit, layers

pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize("block", ["encoder", "res_post", "parallel_things", "parallel_scaling"])
def test_every_block_passes_the_chunk_size_on(block):
    model = build_vit(
        "vit_b16",
        image_size=16,
        patch_size=8,
        hidden_dim=4,
        num_heads=2,
        mlp_dim=4,
        num_layers=1,
        block=block,
        query_chunk_size=2,
    )
    cores = [x for x in model._flatten_layers() if isinstance(x, layers.DotProductAttention)]
    assert cores and all(x.config.query_chunk_size == 2 for x in cores)
    assert model.get_layer("block_0").get_config()["query_chunk_size"] == 2


def test_attention_scores_of_a_built_model():
    inputs = keras.Input(TOKENS[1:])
    block = layers.EncoderBlock(2, 16)
    model = keras.Model(inputs, block(inputs))
    x = random(TOKENS)
    output, scores = block(x, return_attention_scores=True)
    np.testing.assert_allclose(output, model(x), atol=1e-6)
    assert scores.shape == (2, 2, 6, 6)
    symbolic = block(inputs, return_attention_scores=True)
    assert symbolic[1].shape == (None, 2, 6, 6)


def test_dropout_works_in_training_alone():
    layer = layers.EncoderBlock(2, 16, dropout_rate=0.5)
    x = random(TOKENS)
    np.testing.assert_array_equal(layer(x), layer(x))
    different = np.abs(np.array(layer(x, training=True)) - np.array(layer(x, training=True)))
    assert different.max() > 0.01


@pytest.mark.parametrize(
    "make",
    [layers.EncoderBlock, layers.ResPostBlock, layers.ParallelThingsBlock, layers.ParallelScalingBlock],
)
def test_blocks_return_attention_scores(make):
    block = make(2, 16)
    outputs, scores = block(random(TOKENS), return_attention_scores=True)
    np.testing.assert_allclose(outputs, block(random(TOKENS)), atol=1e-6)
    np.testing.assert_allclose(ops.sum(scores, axis=-1), np.ones((2, 2, 6)), atol=1e-5)
    spec = block.compute_output_spec(keras.KerasTensor((None, 6, 8)), return_attention_scores=True)
    assert [tuple(x.shape) for x in spec] == [(None, 6, 8), (None, 2, 6, 6)]
