import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image, ImageEnhance

from vit_tf.data.augment import batch as augment

pytestmark = pytest.mark.every_backend

SHAPE = (64, 8, 12, 3)  # not square

LAYERS = {
    "flip": lambda **kw: augment.RandomFlip(**kw),
    "crop": lambda **kw: augment.RandomCrop(padding=2, **kw),
    "affine": lambda **kw: augment.RandomAffine(rotation=0.1, zoom=0.2, **kw),
    "color": lambda **kw: augment.RandomColor(0.5, **kw),
    "erasing": lambda **kw: augment.RandomErasing(0.9, **kw),
}
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def images(dtype="float32"):
    return np.random.default_rng(0).integers(0, 256, SHAPE).astype(dtype)


def augmented(layer, x):
    return ops.convert_to_numpy(layer(x, training=True))


@each_layer
def test_only_training_changes_images(make):
    layer = make()
    x = images()
    np.testing.assert_array_equal(layer(x), x)
    y = augmented(layer, x)
    assert y.shape == x.shape
    changed = np.abs(y - x).max((1, 2, 3)) > 1
    assert changed.mean() > 0.3


@each_layer
def test_seeds(make):
    x = images()
    first, second = make(seed=1), make(seed=1)
    y = augmented(first, x)
    np.testing.assert_array_equal(y, augmented(second, x))
    assert np.abs(y - augmented(first, x)).max() > 1  # the next batch is another draw
    assert np.abs(y - augmented(make(seed=2), x)).max() > 1
    keras.utils.set_random_seed(3)
    z = augmented(make(), x)
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(z, augmented(make(), x))


@pytest.mark.tensorflow_only
@each_layer
def test_config_and_keras_file_round_trip(make, tmp_path):
    layer = make(seed=5)
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, *SHAPE[1:])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = images()
    np.testing.assert_array_equal(augmented(again, x), augmented(model, x))


@pytest.mark.tensorflow_only
@each_layer
def test_no_bools_are_transposed(make):
    """TensorFlow's oneDNN prints an error about such an operation, and Eigen computes it."""
    import tensorflow as tf

    function = tf.function(make()).get_concrete_function(tf.TensorSpec(SHAPE), training=True)
    transposed = [op.outputs[0].dtype for op in function.graph.get_operations() if op.type == "Transpose"]
    assert tf.bool not in transposed


def test_flip_mirrors_about_half():
    x = images()
    y = augmented(augment.RandomFlip(), x)
    mirrored = (y == x[:, :, ::-1]).all((1, 2, 3))
    kept = (y == x).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 0.25 < mirrored.mean() < 0.75  # 4 standard deviations of 64 draws


def test_crop_is_reflect_padding_and_cropping():
    x = images()
    y = augmented(augment.RandomCrop(padding=2), x)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    shifts = []
    for image, source in zip(y, padded):
        matches = [
            (i, j) for i in range(5) for j in range(5) if (image == source[i : i + 8, j : j + 12]).all()
        ]
        assert len(matches) == 1
        shifts += matches
    assert {i for i, _ in shifts} == {j for _, j in shifts} == set(range(5))


def test_crop_keeps_integer_images():
    y = augmented(augment.RandomCrop(padding=2, dtype="uint8"), images("uint8"))
    assert y.dtype == np.uint8


def test_affine_moves_pixels_where_the_matrix_says():
    layer = augment.RandomAffine(rotation=0.05, zoom=0.3)
    x = images()
    layer.transforms = lambda images: matrices
    # A zoom out by 2 in x alone, about the centre: pixel 6 comes from 2 * 6 - 5.5 = 6.5.
    matrices = np.tile(np.array([2, 0, -5.5, 0, 1, 0, 0, 0], "float32"), (SHAPE[0], 1))
    y = augmented(layer, x)
    np.testing.assert_allclose(y[:, :, 6], (x[:, :, 6] + x[:, :, 7]) / 2, atol=1e-3)


def test_affine_transforms_keep_the_centre_and_the_ranges():
    layer = augment.RandomAffine(rotation=0.05, zoom=0.3)
    t = ops.convert_to_numpy(layer.transforms(np.zeros((500, 8, 12, 3))))
    centre = np.array([5.5, 3.5, 1])
    np.testing.assert_allclose(t[:, :3] @ centre, 5.5, atol=1e-4)
    np.testing.assert_allclose(t[:, 3:6] @ centre, 3.5, atol=1e-4)
    x_zoom, y_zoom = np.hypot(t[:, 0], t[:, 1]), np.hypot(t[:, 3], t[:, 4])
    angle = np.arctan2(t[:, 3], t[:, 4])
    for zoom in (x_zoom, y_zoom):
        assert 0.7 <= zoom.min() < 0.72 and 1.28 < zoom.max() <= 1.3
    assert np.abs(angle).max() <= 0.1 * np.pi + 1e-6 and angle.min() < -0.25 and angle.max() > 0.25


def test_resize_is_bilinear_and_leaves_training_alone(tmp_path):
    layer = augment.Resize((16, 6))
    x = images()
    y = ops.convert_to_numpy(layer(x))
    assert y.shape == (64, 16, 6, 3)
    # Rows are twice as many; columns half: a triangle over four of them, cut at the border.
    row = 0.75 * x[:, 0] + 0.25 * x[:, 1]
    np.testing.assert_allclose(y[:, 1, 0], np.average(row[:, :3], 1, [3, 3, 1]), atol=1e-2)
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, augment.RandomFlip()(layer(inputs)))
    assert model.output_shape == (None, 16, 6, 3)
    np.testing.assert_array_equal(model(x), y)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), y)


@pytest.mark.parametrize("size", [(5, 3), (8, 12), (13, 30)])
def test_resize_is_that_of_keras(size):
    x = images()
    expected = ops.image.resize(x, size, antialias=True, data_format="channels_last")
    layer = augment.Resize(size)
    np.testing.assert_allclose(layer(x), expected, atol=1e-3)  # of 255
    of_any_size = keras.Model(inputs := keras.Input((None, None, 3)), layer(inputs))
    np.testing.assert_allclose(of_any_size.predict(x, verbose=0), expected, atol=1e-3)
    half = augment.Resize(size, dtype="bfloat16")(x)
    assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: augment.RandomColor(1.5), "`strength`"),
        (lambda: augment.RandomErasing(2), "`probability`"),
        (lambda: augment.RandomErasing(area=(0.3, 0.2)), "`area`"),
        (lambda: augment.RandomErasing(ratio=(0, 1)), "`ratio`"),
        (lambda: augment.RandomCrop(padding=-1), "`padding` must be a non-negative int, got -1"),
        (lambda: augment.RandomCrop(padding=8)(images(), training=True), "smaller than the image"),
        (lambda: augment.RandomAffine(zoom=1.0), r"\[0, 1\)"),
        (lambda: augment.RandomAffine(rotation=-0.1), "`rotation`"),
        (lambda: augment.Resize(0), "image_size"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_colours_are_those_of_pillow():
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 7, 3)).astype("uint8")
    layer = augment.RandomColor(0.5)
    factors = iter([1.3, 0.6, 1.4])
    layer.factor = lambda images: next(factors)
    result = ops.convert_to_numpy(layer(image, training=True))[0]
    expected = Image.fromarray(image[0])
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhance, factor in zip(kinds, (1.3, 0.6, 1.4)):
        expected = enhance(expected).enhance(factor)
    # Pillow rounds to bytes after each, and the mean grey and each pixel's grey, too.
    assert np.abs(result - np.asarray(expected, "float32")).max() < 3
    np.testing.assert_array_equal(layer(image), image)


def test_erasing():
    images = np.full((400, 16, 12, 3), -1.0, "float32")
    result = augmented(augment.RandomErasing(0.5, seed=1), images)
    erased = (result >= 0).all(-1)
    assert ((result >= 0).any(-1) == erased).all() and result.max() <= 255
    is_touched = erased.any((1, 2))
    assert 0.42 < is_touched.mean() < 0.58  # four standard errors
    rows, columns = erased.any(2), erased.any(1)
    np.testing.assert_array_equal(erased, rows[:, :, None] & columns[:, None, :])
    for lines in (rows[is_touched], columns[is_touched]):  # intervals: they begin once
        assert (np.diff(lines.astype(int), axis=1, prepend=0) == 1).sum(1).max() == 1
    share = erased.mean((1, 2))[is_touched]
    assert share.max() < 0.4 and share.min() > 0.005  # the area's range, and rounded sides
    assert augment.RandomErasing(**{"area": (0.1, 0.2)}).get_config()["area"] == (0.1, 0.2)
