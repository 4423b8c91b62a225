import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.gradients import gradients
from support.layer_cases import IMAGES, LAYERS, SOFTMAX_IGNORES, TOKENS, each_layer, random

from vit_tf import layers

pytestmark = pytest.mark.every_backend


@pytest.mark.tensorflow_only
@each_layer
def test_config_round_trip(make, shape):
    layer = make()
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    layer.build(shape), again.build(shape)
    assert [v.shape for v in again.variables] == [v.shape for v in layer.variables]


@pytest.mark.tensorflow_only
@each_layer
def test_config_has_every_constructor_argument(make, shape):
    import inspect

    layer = make()
    arguments = set(inspect.signature(type(layer).__init__).parameters) - {"self", "kwargs"}
    assert arguments <= set(layer.get_config())


@each_layer
def test_keras_file_round_trip(make, shape, tmp_path):
    inputs = keras.Input(shape[1:])
    model = randomize(keras.Model(inputs, make()(inputs)))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = random(shape)
    np.testing.assert_allclose(again(x), model(x), rtol=0, atol=1e-6)


@each_layer
def test_symbolic_shape_equals_eager_shape(make, shape):
    layer = make()
    symbolic = layer(keras.Input(shape[1:]))
    eager = layer(random(shape))
    assert tuple(symbolic.shape) == (None, *eager.shape[1:])
    assert tuple(layer.compute_output_shape(shape)) == tuple(eager.shape)
    assert str(symbolic.dtype) == keras.backend.standardize_dtype(eager.dtype)


@pytest.mark.tensorflow_only
@each_layer
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(make, shape, policy):
    x = random(shape)
    plain = make()
    plain.build(shape)
    randomize(plain, 0.1)
    keras.config.set_dtype_policy(policy)
    layer = make()
    layer.build(shape)
    layer.set_weights(plain.get_weights())
    output = layer(x)
    assert keras.backend.standardize_dtype(output.dtype) == policy.removeprefix("mixed_")
    assert all(v.dtype == "float32" for v in layer.trainable_variables)
    # bfloat16 keeps 8 bits of a number; the outputs here are of the order of 1.
    np.testing.assert_allclose(ops.cast(output, "float32"), plain(x), rtol=0.05, atol=0.05)


@each_layer
def test_every_trainable_variable_receives_a_gradient(make, shape):
    layer = make()
    layer.build(shape)
    randomize(layer)
    goal = random(layer.compute_output_shape(shape), seed=5)
    for path, gradient in gradients(layer, random(shape), lambda y: ops.sum(ops.multiply(y, goal))).items():
        assert gradient is not None and (np.abs(gradient).max() > 1e-7 or path.endswith(SOFTMAX_IGNORES)), (
            path
        )


def test_patches_are_rows_of_pixels():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    patches = ops.convert_to_numpy(layers.Patches((2, 3), dtype="int32")(images))
    assert patches.shape == (2, 4, 18)
    for i, (row, column) in enumerate([(0, 0), (0, 3), (2, 0), (2, 3)]):
        expected = images[:, row : row + 2, column : column + 3].reshape(2, -1)
        np.testing.assert_array_equal(patches[:, i], expected)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no dynamic image sizes")
@pytest.mark.parametrize("make", [LAYERS["patches"][0], LAYERS["patch_embedding"][0]])
def test_unknown_image_size(make):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, make()(inputs))
    assert model.output_shape[1] is None
    for shape in [(2, 8, 12, 3), (1, 16, 4, 3)]:
        x = random(shape)
        assert model(x).shape[1] == shape[1] * shape[2] // 8
        np.testing.assert_allclose(model(x), model.layers[-1](x), atol=1e-6)


@pytest.mark.parametrize("patch_size", [4, (2, 6)])
def test_convolution_and_dense_on_patches_are_the_same_function(patch_size):
    convolution = layers.PatchEmbedding(10, patch_size)
    convolution.build(IMAGES)
    randomize(convolution)
    kernel, bias = convolution.get_weights()
    dense = keras.layers.Dense(10)
    patches = layers.Patches(patch_size)(random(IMAGES))
    dense.build(patches.shape)
    dense.set_weights([kernel.reshape(-1, 10), bias])
    # float32 sums of 36 to 48 products of the order of 1, in another order
    np.testing.assert_allclose(dense(patches), convolution(random(IMAGES)), atol=1e-5)


def test_class_token_and_positions_are_tracked_in_place():
    layer = layers.PatchEncoder((2, 3))
    layer.build((None, 6, 8))
    assert [v.path.split("/")[-1] for v in layer.trainable_variables] == [
        "class_token",
        "position_embedding",
    ]
    token, positions = randomize(layer).get_weights()
    x = random(TOKENS)
    expected = np.concatenate([np.repeat(token, 2, 0), x], 1) + positions
    np.testing.assert_allclose(layer(x), expected, atol=1e-6)


def test_attention_scores_on_request():
    layer = layers.MultiHeadSelfAttention(2, attention_dropout_rate=0.5)
    layer.build(TOKENS)
    randomize(layer)
    x = random(TOKENS)
    output, scores = layer(x, return_attention_scores=True)
    assert scores.shape == (2, 2, 6, 6)
    np.testing.assert_allclose(ops.sum(scores, -1), np.ones((2, 2, 6)), atol=1e-6)
    assert np.ptp(ops.convert_to_numpy(scores)) > 0.01  # not uniform: the test can see something
    np.testing.assert_allclose(layer(x), output, atol=1e-6)
    # What was returned is what was applied: the output follows from the scores and the values.
    qkv, bias, projection, projection_bias = layer.get_weights()
    value = (x @ qkv + bias)[..., 16:].reshape(2, 6, 2, 4).transpose(0, 2, 1, 3)
    mixed = (ops.convert_to_numpy(scores) @ value).transpose(0, 2, 1, 3).reshape(2, 6, 8)
    np.testing.assert_allclose(output, mixed @ projection + projection_bias, atol=1e-5)


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


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    layer = layers.DropPath(0.25, seed=1)
    x = 1 + np.abs(random((4000, 3, 2)))
    y = ops.convert_to_numpy(layer(x, training=True))
    kept = np.isclose(y, x / 0.75, rtol=1e-5).all((1, 2))
    dropped = (y == 0).all((1, 2))
    assert (kept | dropped).all()
    assert 0.22 < dropped.mean() < 0.28  # 4 standard deviations of 4,000 draws
    np.testing.assert_array_equal(layer(x, training=False), x)


def test_dropout_works_in_training_alone():
    layer = layers.EncoderBlock(2, 16, dropout_rate=0.5)
    x = random(TOKENS)
    np.testing.assert_array_equal(layer(x), layer(x))
    different = np.abs(np.array(layer(x, training=True)) - np.array(layer(x, training=True)))
    assert different.max() > 0.01


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.Patches(5)(random(IMAGES)), "multiple of 5"),
        (lambda: layers.Patches(0), "positive int"),
        (lambda: layers.Patches((2, 2, 2)), "pair"),
        (lambda: layers.Patches("4"), "patch_size"),
        (lambda: layers.PatchEmbedding(8, 3)(random(IMAGES)), "multiple of 3"),
        (lambda: layers.OverlapPatchEmbedding(8, 6), "power of two"),
        (lambda: layers.OverlapPatchEmbedding(8, (4, 2)), "power of two"),
        (lambda: layers.OverlapPatchEmbedding(8, 8)(random(IMAGES)), "multiple of 8"),
        (lambda: layers.PatchEncoder((2, 2))(random(TOKENS)), "4 patches, got 6"),
        (lambda: layers.MultiHeadSelfAttention(3)(random(TOKENS)), "head_dim"),
        (lambda: layers.DropPath(1.0), r"\[0, 1\)"),
        (lambda: layers.TokenPooling("median"), "avg"),
        (lambda: layers.PatchEmbedding(8, 16, allow_remainder=True)(random(IMAGES)), "multiple of 16"),
        (lambda: layers.EncoderBlock(2, 4, norm="batch"), '"layer" or "rms", got \'batch\''),
        (lambda: layers.EncoderBlock(2, 4, mlp="conv"), "swiglu"),
        (lambda: layers.EncoderBlock(2, 4, attention="linear"), "differential"),
        (lambda: layers.EncoderBlock(2, 4, activation="swoosh"), "swoosh"),
        (lambda: layers.ParallelScalingBlock(2, 4, mlp="swiglu"), "sub_norm"),
        (lambda: layers.ParallelScalingBlock(3, 4)(random(TOKENS)), "head_dim"),
        (lambda: layers.ResPostBlock(2, 4, norm="rms", layer_scale_init=0.1), "layer_scale_init"),
        (
            lambda: layers.MultiHeadSelfAttention(2, head_dim=5, attention="differential")(random(TOKENS)),
            "5 is odd",
        ),
        (lambda: layers.AttentionPooling(3, 4)(random(TOKENS)), "3 heads do not divide"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.tensorflow_only
def test_channels_first_config_changes_nothing():
    x = random(IMAGES)
    layer = layers.PatchEmbedding(8, 4)
    expected = layer(x)
    keras.config.set_image_data_format("channels_first")
    try:
        again = layers.PatchEmbedding(8, 4)
        again.build(IMAGES)
        again.set_weights(layer.get_weights())
        np.testing.assert_allclose(again(x), expected, atol=1e-6)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_gated_mlp_is_the_same_packed_and_split():
    packed, split = layers.GatedMLP(5), layers.GatedMLP(5, packed=False)
    packed.build(TOKENS), split.build(TOKENS)
    randomize(packed)
    kernel, bias, *rest = packed.get_weights()
    split.set_weights([kernel[:, :5], bias[:5], kernel[:, 5:], bias[5:], *rest])
    np.testing.assert_allclose(packed(random(TOKENS)), split(random(TOKENS)), atol=1e-6)


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
def test_heads_config_and_shapes(make, qk_norm):
    layer = make(2, qk_norm=qk_norm, norm="rms", dropout_rate=0.1)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    symbolic = layer(keras.Input((5, 24)), return_attention_scores=True)
    eager = again(random((3, 5, 24)), return_attention_scores=True)
    assert [(None, *x.shape[1:]) for x in eager] == [tuple(x.shape) for x in symbolic]
    assert tuple(eager[1].shape) == (3, 2, 5, 5)


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


def test_prefix_tokens_come_first_and_have_positions_only_if_asked():
    for prefix_positions in (True, False):
        layer = layers.PatchEncoder(
            (2, 3), distillation_token=True, num_registers=2, prefix_positions=prefix_positions
        )
        layer.build(TOKENS)
        randomize(layer)
        x = random(TOKENS)
        output = ops.convert_to_numpy(layer(x))
        named = {v.path.split("/")[-1]: ops.convert_to_numpy(v) for v in layer.weights}
        positions = named.pop("position_embedding")
        prefix = np.concatenate(
            [named[n] for n in ("class_token", "distillation_token", "register_tokens")], 1
        )
        assert positions.shape[1] == (10 if prefix_positions else 6)
        if prefix_positions:
            prefix = prefix + positions[:, :4]
        np.testing.assert_allclose(output[0, :4], prefix[0], atol=1e-6)
        np.testing.assert_allclose(output[:, 4:], x + positions[:, -6:], atol=1e-6)


def test_attention_pooling_ignores_the_prefix_and_the_order():
    layer = layers.AttentionPooling(2, 12, num_prefix_tokens=1)
    layer.build(TOKENS)
    randomize(layer)
    x, other = random(TOKENS), random(TOKENS)
    other[:, 0] += 100
    other[:, 1:] = other[:, :0:-1]
    np.testing.assert_allclose(layer(x), layer(other), atol=1e-5)
    assert np.abs(ops.convert_to_numpy(layer(x) - layer(x[:, ::-1]))).max() > 1e-3


def test_remainder_is_dropped_at_the_right_and_at_the_bottom():
    layer = layers.PatchEmbedding(8, 5, allow_remainder=True)
    x = random(IMAGES)
    np.testing.assert_allclose(layer(x), layer(x[:, :5, :10]), atol=1e-6)


def test_whitening_decorrelates_the_surroundings_of_pixels():
    layer = layers.WhitenedPatchEmbedding(8, 2)
    layer.build(IMAGES)
    images = random((40, 8, 12, 3))
    images = np.cumsum(images, axis=2)  # neighbours resemble each other
    layer.adapt(images, epsilon=0.0)
    white = ops.conv(images, layer.whitening.value, padding="valid", data_format="channels_last")
    white = np.reshape(ops.convert_to_numpy(white), (-1, 27))
    # float32 sums over 2,400 patches of variances from 1e-2 to 1e2
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(27), rtol=0, atol=0.01)


def test_whitening_is_not_trained():
    layer = layers.WhitenedPatchEmbedding(8, 2)
    layer.build(IMAGES)
    assert [v.path.rpartition("/")[2] for v in layer.non_trainable_variables] == ["whitening"]
    assert len(layer.trainable_variables) == 2


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("shape", [(4, 8, 8, 1), (8, 8, 3), (4, 2, 8, 3), (0, 8, 8, 3)])
def test_whitening_of_bad_images(shape):
    layer = layers.WhitenedPatchEmbedding(8, 2)
    layer.build(IMAGES)
    with pytest.raises(ValueError, match=r"\(b, h, w, 3\) of at least 3x3"):
        layer.adapt(np.zeros(shape))
