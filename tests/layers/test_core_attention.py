import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.layer_cases import random

from vit_tf import layers

pytestmark = pytest.mark.every_backend


def test_differential_attention_is_a_difference_of_two_softmaxes():
    layer = layers.DifferentialAttention(1, block_index=2)
    qkv = random((1, 3, 12))
    layer.build(qkv.shape)
    randomize(layer)
    values, scores = layer(qkv, return_attention_scores=True)
    query, key, value = np.split(qkv[0], 3, axis=-1)

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    first, second = (softmax(query[:, s] @ key[:, s].T / 2**0.5) for s in (slice(0, 2), slice(2, 4)))
    q1, k1, q2, k2 = (ops.convert_to_numpy(getattr(layer, f"lambda_{x}")) for x in ("q1", "k1", "q2", "k2"))
    initial = 0.8 - 0.6 * np.exp(-0.6)
    factor = np.exp(q1 @ k1) - np.exp(q2 @ k2) + initial
    expected = first - factor * second
    np.testing.assert_allclose(ops.convert_to_numpy(scores)[0, 0], expected, atol=1e-5)
    heads = expected @ value
    heads = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-5)
    heads = heads * ops.convert_to_numpy(layer.head_norm.scale) * (1 - initial)
    np.testing.assert_allclose(ops.convert_to_numpy(values)[0], heads, atol=1e-5)
    np.testing.assert_allclose(ops.sum(scores, axis=-1), 1 - factor, atol=1e-5)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("make", [layers.DotProductAttention, layers.DifferentialAttention])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_config_and_shapes(make, qk_norm):
    layer = make(2, qk_norm=qk_norm, norm="rms", attention_dropout_rate=0.1)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    symbolic = layer(keras.Input((5, 24)), return_attention_scores=True)
    eager = again(random((3, 5, 24)), return_attention_scores=True)
    assert [(None, *x.shape[1:]) for x in eager] == [tuple(x.shape) for x in symbolic]
    assert tuple(eager[1].shape) == (3, 2, 5, 5)


@pytest.mark.parametrize("make", [layers.DotProductAttention, layers.DifferentialAttention])
def test_scores_of_some_queries_are_prepared_at_their_own_places(make):
    class Weighted(make):
        """Queries weighted by their place among all tokens, as a rotation by position would."""

        def prepare(self, query, key, *_):
            return query * ops.arange(query.shape[-2], dtype="float32")[:, None], key

    layer = Weighted(2, query_chunk_size=3)
    layer.build((2, 7, 24))
    randomize(layer, 0.5)
    qkv = ops.convert_to_tensor(random((2, 7, 24)))
    x, whole = map(ops.convert_to_numpy, layer(qkv, return_attention_scores=True))
    np.testing.assert_allclose(layer.scores(qkv), whole, atol=1e-6)
    np.testing.assert_allclose(layer.scores(qkv, slice(2, 5)), whole[:, :, 2:5], atol=1e-6)
    assert np.abs(whole - ops.convert_to_numpy(make.scores(layer, 0 * qkv))).max() > 0.01
    np.testing.assert_allclose(layer(qkv), x, atol=1e-5)  # in chunks


ROTARY = dict(rotary=dict(temperature=10.0), grid_size=(2, 3), num_prefix_tokens=1)


@pytest.mark.parametrize(
    "make, options",
    [
        (layers.DotProductAttention, ROTARY),
        (layers.DotProductAttention, dict(num_kv_heads=2, qk_norm=True, **ROTARY)),
        (layers.DifferentialAttention, ROTARY),
    ],
)
def test_all_paths_of_rotary_and_grouped_attention_agree(make, options):
    heads, kv_heads = 4, options.get("num_kv_heads", 4)
    layer = make(heads, query_chunk_size=3, **options)
    layer.build((2, 7, (heads + 2 * kv_heads) * 8))
    randomize(layer, 0.5)
    qkv = ops.convert_to_tensor(random((2, 7, (heads + 2 * kv_heads) * 8)))
    x, whole = map(ops.convert_to_numpy, layer(qkv, return_attention_scores=True))
    np.testing.assert_allclose(layer.scores(qkv, slice(2, 5)), whole[:, :, 2:5], atol=1e-6)
    np.testing.assert_allclose(layer(qkv), x, atol=1e-5)  # in chunks
    np.testing.assert_allclose(layer(qkv, grid=ops.zeros((2, 3), "int32")), x, atol=1e-5)
    other = ops.convert_to_numpy(layer.scores(qkv, grid=ops.zeros((3, 2), "int32")))
    assert np.abs(other - whole).max() > 0.01  # the places of the patches matter
    if make is layers.DotProductAttention:
        fused = ops.convert_to_numpy(layer.fused_attention(qkv))
        np.testing.assert_allclose(fused.reshape(x.shape), x, atol=1e-5)


def test_keys_of_grouped_queries_are_those_of_repeated_heads():
    qkv = random((2, 5, 4, 6)), random((2, 5, 2, 6), 1), random((2, 5, 2, 6), 2)
    grouped = layers.DotProductAttention(4, num_kv_heads=2)
    plain = layers.DotProductAttention(4)
    repeated = (qkv[0], *(np.repeat(x, 2, axis=2) for x in qkv[1:]))
    qkv, repeated = (np.concatenate([x.reshape(2, 5, -1) for x in parts], -1) for parts in (qkv, repeated))
    np.testing.assert_allclose(grouped(qkv), plain(repeated), atol=1e-6)
