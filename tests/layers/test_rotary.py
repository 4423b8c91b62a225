import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.layer_cases import random

from vit_tf import layers
from vit_tf.config import RotaryConfig

pytestmark = pytest.mark.every_backend

KINDS = {
    "axial": dict(temperature=100.0),
    "axial_scaled": dict(offset=1.0, reference_grid=(4, 5), columns_first=True),
    "axial_halves": dict(half_rotation=True, columns_first=True),
    "dinov3": dict(kind="dinov3", temperature=100.0, half_rotation=True),
    "mixed": dict(kind="mixed", temperature=10.0, columns_first=True),
}
each_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)


def turned(x, layer, options, grid, p):
    """Returns queries `(b, H, n, k)` turned by products of complex numbers, in float64."""
    config, k = RotaryConfig(**options), x.shape[-1]
    rows, columns = np.indices(grid, "float64").reshape(2, -1)
    if config.kind == "axial":
        scales = np.array(config.reference_grid or grid) / grid
        rows, columns = (rows + config.offset) * scales[0], (columns + config.offset) * scales[1]
    if config.kind == "dinov3":
        rows, columns = (2 * np.pi * (2 * (x + 0.5) / n - 1) for x, n in zip((rows, columns), grid))
    y, x_ = (columns, rows) if config.columns_first else (rows, columns)
    bands = config.temperature ** -(np.arange(k // 4) / (k // 4))
    if config.kind == "mixed":
        f = ops.convert_to_numpy(layer.frequencies).astype("float64")  # (2, H, k / 2)
        angles = y[:, None] * f[0][:, None] + x_[:, None] * f[1][:, None]
    else:
        angles = np.concatenate([np.outer(y, bands), np.outer(x_, bands)], axis=-1)
    pairs = (x[..., : k // 2], x[..., k // 2 :]) if config.half_rotation else (x[..., ::2], x[..., 1::2])
    z = pairs[0].astype("complex128") + 1j * pairs[1]
    z[..., p:, :] *= np.exp(1j * angles)
    parts = z.real, z.imag
    return np.concatenate(parts, -1) if config.half_rotation else np.stack(parts, -1).reshape(x.shape)


@each_kind
def test_pairs_of_channels_are_turned_as_complex_numbers(options):
    layer = layers.RotaryPositions((3, 4), 2, **options)
    x = random((2, 3, 14, 12))
    layer.build(x.shape)
    expected = turned(x, layer, options, (3, 4), 2)
    assert np.abs(expected - x)[:, :, 2:].max() > 0.5  # something is turned
    np.testing.assert_allclose(layer(x), expected, atol=2e-6)
    tokens_first = layer(x.transpose(0, 2, 1, 3), tokens_first=True)
    np.testing.assert_allclose(ops.transpose(tokens_first, (0, 2, 1, 3)), expected, atol=2e-6)
    # A grid that each call says, as for images of any size.
    layer = layers.RotaryPositions(None, 2, **options)
    layer.build(x.shape)
    for grid in ((3, 4), (2, 6)):
        expected = turned(x, layer, options, grid, 2)
        np.testing.assert_allclose(layer(x, grid=ops.zeros(grid, "int32")), expected, atol=2e-6)


@each_kind
def test_scores_depend_on_differences_of_places_alone(options):
    layer = layers.RotaryPositions((4, 4), **options)
    layer.build((1, 2, 16, 8))
    query, key = (np.repeat(random((1, 2, 1, 8), seed), 16, axis=2) for seed in (0, 1))
    scores = ops.convert_to_numpy(ops.matmul(layer(query), ops.swapaxes(layer(key), -1, -2)))
    scores = scores.reshape(2, 4, 4, 4, 4)
    np.testing.assert_allclose(scores[:, 1:, 1:, 1:, 1:], scores[:, :-1, :-1, :-1, :-1], atol=1e-5)
    assert np.ptp(scores) > 0.1


def test_angles_are_float32_in_half_precision():
    layer = layers.RotaryPositions((40, 50), dtype="mixed_bfloat16")
    exact = layers.RotaryPositions((40, 50))
    x = ops.cast(random((1, 1, 2000, 8)), "bfloat16")
    layer.build(x.shape), exact.build(x.shape)
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    expected = ops.cast(exact(ops.cast(x, "float32")), "bfloat16")  # rounded once, at the end
    np.testing.assert_array_equal(ops.cast(y, "float32"), ops.cast(expected, "float32"))


@pytest.mark.slow
def test_models_for_images_of_any_size():
    options = dict(num_heads=2, mlp_dim=12, rotary=KINDS["mixed"], num_prefix_tokens=1)
    patches = keras.Input((None, None, 8))
    tokens = keras.Input((None, 8))
    block = layers.EncoderBlock(**options)
    model = keras.Model([patches, tokens], block(tokens, grid=layers.PatchGrid()(patches)))
    randomize(model)
    for rows, columns in ((2, 3), (3, 2), (1, 5)):
        x = random((2, 1 + rows * columns, 8))
        fixed = layers.EncoderBlock(**options, grid_size=(rows, columns))
        fixed.build(x.shape)
        fixed.set_weights(block.get_weights())
        np.testing.assert_allclose(model([random((2, rows, columns, 8)), x]), fixed(x), atol=1e-5)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.RotaryPositions((2, 3), kind="axal"), "did you mean 'axial'"),
        (lambda: layers.RotaryPositions((2, 0)), "grid_size"),
        (lambda: layers.RotaryPositions((2, 3), temperature=0), "temperature"),
        (lambda: layers.RotaryPositions((2, 3), kind="mixed", offset=1.0), "kind='axial'"),
        (lambda: layers.RotaryPositions((2, 3)).build((1, 2, 6, 6)), "multiple of 4"),
        (lambda: layers.RotaryPositions((2, 3), 1).build((1, 2, 6, 8)), "are 7 tokens, got 6"),
        (lambda: layers.RotaryPositions()(random((1, 2, 6, 8))), "needs a `grid`"),
        (lambda: layers.MultiHeadSelfAttention(2, rotary=dict(kinds="axial")), "did you mean 'kind'"),
        (lambda: layers.MultiHeadSelfAttention(2, rotary="axial"), "dict of its fields or None"),
        (lambda: layers.ParallelScalingBlock(2, 4, qkv_bias="qv"), "qkv_bias"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
