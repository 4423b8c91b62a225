"""Attention in chunks of queries: the same function and gradients, in less memory."""

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.gradients import gradients
from support.numpy_vit import softmax

from vit_tf import build_vit, layers
from vit_tf.layers.chunked_attention import chunked_attention
from vit_tf.layers.core_attention import choose_chunk_size

pytestmark = pytest.mark.every_backend

BACKEND = keras.backend.backend()
TOKENS = (2, 7, 8)
QKV = (2, 7, 24)


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def sum_of_squares(x):
    return ops.sum(ops.square(ops.cast(x, "float32")))


def built(make, shape, **options):
    layer = make(**options)
    layer.build(shape)
    return randomize(layer, 0.5)


def chunked_and_whole(make, shape, chunk_size=3, **options):
    """Returns two layers of the same weights."""
    chunked, whole = (built(make, shape, query_chunk_size=size, **options) for size in (chunk_size, 0))
    whole.set_weights(chunked.get_weights())
    return chunked, whole


def seed_states(layer):
    return {v.path: np.array(ops.convert_to_numpy(v)) for v in layer.non_trainable_variables}


def set_seeds(layer, values):
    for variable, value in zip(layer.non_trainable_variables, values.values()):
        variable.assign(value)


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 6])  # sizes 1; 2, 2, 3; 3, 4; and again 3, 4
def test_chunks_equal_numpy(chunk_size):
    query, key, value = random((2, 3, 7, 4), 1), random((2, 3, 7, 4), 2), random((2, 3, 7, 5), 3)
    expected = softmax(query.astype("float64") @ key.swapaxes(2, 3)) @ value
    x = chunked_attention(*map(ops.convert_to_tensor, (2 * query, key, value)), chunk_size, 0.5)
    np.testing.assert_allclose(x, expected.swapaxes(1, 2), atol=1e-5)  # sums of 7 products


KINDS = {
    "softmax": {},
    "qk_norm": dict(qk_norm=True, norm="rms"),
    "differential": dict(attention="differential", block_index=2),
    "relative": dict(relative_positions=True, grid_size=(2, 3), num_prefix_tokens=1),
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_chunks_change_neither_values_nor_gradients(options):
    chunked, whole = chunked_and_whole(
        layers.MultiHeadSelfAttention, TOKENS, num_heads=2, head_dim=6, **options
    )
    x = random(TOKENS)
    np.testing.assert_allclose(chunked(x), whole(x), rtol=1e-5, atol=1e-5)
    ours, expected = (list(gradients(layer, x, sum_of_squares).values()) for layer in (chunked, whole))
    assert len(ours) == len(expected) > 3
    for gradient, reference in zip(ours, expected):
        assert np.abs(reference).max() > 1e-4
        # float32, sums in another order; some gradients are small differences of large numbers
        np.testing.assert_allclose(gradient, reference, rtol=1e-4, atol=1e-5 * np.abs(reference).max() + 1e-5)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 2e-2), ("float16", 3e-3)])
def test_chunks_in_half_precision(dtype, tolerance):
    chunked, whole = chunked_and_whole(
        layers.MultiHeadSelfAttention, TOKENS, num_heads=2, dtype=f"mixed_{dtype}"
    )
    x = random(TOKENS)
    assert keras.backend.standardize_dtype(chunked(x).dtype) == dtype
    ours, expected = (gradients(layer, x, sum_of_squares) for layer in (chunked, whole))
    for gradient, reference in zip(ours.values(), expected.values()):
        # 8 and 11 bits a number, roundings in another order
        np.testing.assert_allclose(gradient, reference, atol=tolerance * np.abs(reference).max())


def test_dropout_in_chunks_drops_probabilities():
    n, rate = 60, 0.3
    query = ops.convert_to_tensor(random((2, 2, n, 4)))
    eye = ops.convert_to_tensor(np.broadcast_to(np.eye(n, dtype="float32"), (2, 2, n, n)))
    generator = keras.random.SeedGenerator(3)

    def probabilities(**options):
        return ops.convert_to_numpy(chunked_attention(query, query, eye, 20, **options)).swapaxes(1, 2)

    plain = probabilities()
    first, second = (probabilities(dropout_rate=rate, seed_generator=generator) for _ in range(2))
    kept = first != 0
    assert abs((~kept).mean() - rate) < 0.02  # 5 standard deviations of 14,400 draws
    np.testing.assert_allclose(first[kept], plain[kept] / (1 - rate), rtol=1e-5)
    chunks = [kept[:, :, i : i + 20] for i in (0, 20, 40)]
    masks = [*chunks, second[:, :, :20] != 0]
    for i in range(len(masks)):  # chunks and calls have masks of their own: 0.7^2 + 0.3^2 agree by chance
        for j in range(i):
            assert (masks[i] == masks[j]).mean() < 0.65


def test_gradients_under_dropout_are_those_of_the_masks_drawn():
    layer = built(
        layers.MultiHeadSelfAttention,
        TOKENS,
        num_heads=2,
        attention_dropout_rate=0.4,
        query_chunk_size=4,
    )
    x, seeds = random(TOKENS), seed_states(layer)
    assert seeds
    slopes = gradients(layer, x, sum_of_squares)
    direction = [random(v.shape, i) for i, v in enumerate(layer.trainable_variables)]
    weights, losses, step = [np.array(ops.convert_to_numpy(v)) for v in layer.trainable_variables], [], 3e-3
    for sign in (1, -1):
        for variable, weight, change in zip(layer.trainable_variables, weights, direction):
            variable.assign(weight + sign * step * change)
        set_seeds(layer, seeds)
        losses.append(float(sum_of_squares(layer(x, training=True))))
    expected = sum(np.vdot(change, slope) for change, slope in zip(direction, slopes.values()))
    # The difference quotient is wrong by O(step^2), and by float32's rounding of the losses over the step.
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(expected, rel=5e-3)


def trained_weights(jit_compile=False, **options):
    """Returns the weights of a small block after two steps."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(TOKENS[1:])
    model = keras.Model(inputs, layers.EncoderBlock(2, 12, name="block", **options)(inputs))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
    for seed in range(2):
        model.train_on_batch(random(TOKENS, seed), random(TOKENS, seed + 9))
    return [np.array(ops.convert_to_numpy(v)) for v in model.variables]


@pytest.mark.slow
@pytest.mark.parametrize(
    "jit_compile", {"tensorflow": [False, True], "jax": [True], "torch": [False]}[BACKEND]
)
def test_compiled_training_is_the_same(jit_compile):
    chunked, whole = (trained_weights(jit_compile, query_chunk_size=size) for size in (4, 0))
    for ours, expected in zip(chunked, whole):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.slow
def test_rematerialization_draws_the_masks_of_the_chunks_again():
    options = dict(query_chunk_size=4, attention_dropout_rate=0.4, jit_compile=BACKEND == "jax")
    kept = trained_weights(**options)
    with keras.RematScope("list_of_layers", layer_names=["block"]):
        again = trained_weights(**options)
    for ours, expected in zip(again, kept):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("make", [layers.DotProductAttention, layers.DifferentialAttention])
def test_scores_are_there_when_asked_for(make):
    layer = built(make, QKV, num_heads=2, query_chunk_size=3)
    x, scores = layer(random(QKV), return_attention_scores=True)
    assert tuple(scores.shape) == (2, 2, 7, 7)
    alone = layer(random(QKV))
    assert tuple(alone.shape) == tuple(layer.compute_output_spec(random(QKV)).shape) == (2, 7, 8)
    np.testing.assert_allclose(alone, x, atol=1e-5)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no dynamic shapes")
def test_unknown_number_of_tokens():
    inputs = keras.Input((None, 8))
    layer = layers.EncoderBlock(2, 12, query_chunk_size=3)
    model = keras.Model(inputs, layer(inputs))
    for n in (2, 3, 7):
        np.testing.assert_allclose(model(random((2, n, 8))), layer(random((2, n, 8))), atol=1e-6)


@pytest.mark.tensorflow_only("a graph of TensorFlow")
def test_unknown_number_of_tokens_in_a_graph():
    import tensorflow as tf

    layer = built(layers.DotProductAttention, QKV, num_heads=2, query_chunk_size=3)
    graph = tf.function(layer, input_signature=[tf.TensorSpec((None, None, 24))])
    np.testing.assert_allclose(graph(random(QKV)), layer(random(QKV)), atol=1e-5)


def test_chunk_size_is_chosen_by_the_number_of_tokens():
    assert choose_chunk_size(197) == choose_chunk_size(1024) == 0
    assert 0 < choose_chunk_size(4097) < 4097
    assert choose_chunk_size(None) == choose_chunk_size(None, 64) == choose_chunk_size(4097, 0) == 0
    assert choose_chunk_size(197, 64) == 64
    assert choose_chunk_size(64, 64) == 0  # one chunk is all


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("size", [-1, 1.5, True, "all"])
def test_bad_chunk_size(size):
    for make in (
        lambda: layers.DotProductAttention(2, query_chunk_size=size),
        lambda: build_vit("vit_b16", query_chunk_size=size),
    ):
        with pytest.raises(ValueError, match="`query_chunk_size` must be a non-negative int.* got"):
            make()


def temporary_bytes(chunk_size, n=512):
    """What XLA sets aside for the forward and backward pass of one head."""
    import jax

    def loss(query, key, value):
        if chunk_size:
            return sum_of_squares(chunked_attention(query, key, value, chunk_size))
        return sum_of_squares(ops.softmax(query @ ops.swapaxes(key, -1, -2)) @ value)

    arguments = [random((1, 1, n, 8), seed) for seed in range(3)]
    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.skipif(BACKEND != "jax", reason="XLA's own count of its memory")
def test_compiled_memory_is_that_of_a_few_chunks():
    scores = 512 * 512 * 4
    assert temporary_bytes(0) > 2 * scores  # the test can see something
    assert temporary_bytes(32) < scores / 2  # 16 chunks, of which 4 at a time would be a quarter


@pytest.mark.slow
@pytest.mark.tensorflow_only("TensorFlow's own graph")
def test_chunks_wait_for_each_other():
    """In the optimised graph each product of scores needs the one before: none can run at the same time."""
    import tensorflow as tf

    n, chunks = 64, 4

    def slopes(query, key, value):
        with tf.GradientTape() as tape:
            tape.watch((query, key, value))
            loss = sum_of_squares(chunked_attention(query, key, value, n // chunks))
        return tape.gradient(loss, (query, key, value))

    function = tf.function(slopes).get_concrete_function(*[tf.TensorSpec((1, 1, n, 8))] * 3)
    operations = function.graph.get_operations()
    products = [op for op in operations if op.type == "BatchMatMulV2" and op.outputs[0].shape[-1] == n]
    assert len(products) == 3 * chunks  # scores forward, scores again, their gradients

    ancestors = {}
    for op in operations:  # in the order of their needs
        above = [x.op for x in op.inputs]
        ancestors[op.name] = set().union({x.name for x in above}, *(ancestors[x.name] for x in above))
    forward, backward = products[:chunks], products[chunks:]
    for before, later in zip(forward, forward[1:]):
        assert before.name in ancestors[later.name]
    for i in range(0, len(backward), 2):
        done = forward if i == 0 else backward[i - 2 : i]
        for before in done:
            assert all(before.name in ancestors[later.name] for later in backward[i : i + 2])


@pytest.mark.tensorflow_only("training with TensorFlow")
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
@pytest.mark.parametrize("kind", ["softmax", "qk_norm", "relative"])
def test_training_at_once_keeps_no_scores(kind, dtype, tolerance):
    """By default the scores are computed again where they wait for the gradient; with 0 they are kept."""
    import tensorflow as tf

    options = dict(num_heads=2, head_dim=6, dtype=dtype, **KINDS[kind])
    again, kept = chunked_and_whole(layers.MultiHeadSelfAttention, TOKENS, None, **options)
    x = tf.cast(random(TOKENS), again.compute_dtype)
    values, softmaxes = [], []
    for layer in (again, kept):

        @tf.function
        def step(x, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = sum_of_squares(layer(x, training=True))
            return tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])

        graph = step.get_concrete_function(x).graph
        softmaxes.append(sum(op.type == "Softmax" for op in graph.get_operations()))
        values.append([np.array(tf.cast(value, "float32")) for value in step(x)])
    assert softmaxes == [2, 1]
    for ours, expected in zip(*values, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * np.abs(expected).max() + 1e-6)
