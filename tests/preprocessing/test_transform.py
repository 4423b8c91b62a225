import json
import os
import subprocess
import sys

import keras
import numpy as np
import PIL
import pytest
from keras import ops
from PIL import Image
from support.paths import ROOT
from support.photos import MEAN, STD, photo, run_python

from vit_tf.preprocessing import PreprocessImages, Preprocessing, get_preprocessing, timm_table

SIZES = [(150, 200), (263, 175), (60, 45)]  # landscape, portrait, and one to be enlarged


def pixels(images, settings):
    """Undoes the normalisation: values in [0, 255]."""
    images = ops.convert_to_numpy(images).astype("float64")
    return (images * settings.std + settings.mean) * 255


# (interpolation, crop_fraction, crop_mode, image_size): 16 evenly spaced values of each of the
# photographs of SIZES, as timm 1.0.31 and Pillow 13.0 give them.
EXPECTED = {
    ("bicubic", 1.0, "center", (224, 224)): [
        [31, 133, 255, 252, 188, 186, 168, 174, 131, 114, 188, 156, 160, 144, 147, 30],
        [105, 208, 197, 184, 181, 170, 137, 180, 91, 96, 82, 175, 185, 217, 225, 26],
        [92, 189, 193, 225, 204, 221, 171, 172, 106, 91, 0, 69, 57, 149, 113, 40],
    ],
    ("bicubic", 0.9, "center", (224, 224)): [
        [0, 140, 251, 149, 172, 180, 196, 179, 130, 104, 181, 180, 145, 158, 150, 57],
        [122, 181, 195, 178, 167, 168, 125, 180, 77, 74, 90, 131, 201, 215, 199, 126],
        [84, 179, 201, 202, 187, 200, 189, 173, 108, 90, 0, 77, 66, 33, 120, 77],
    ],
    ("bilinear", 0.875, "center", (96, 96)): [
        [13, 82, 90, 50, 192, 0, 159, 223, 163, 191, 243, 163, 123, 48, 154, 53],
        [138, 91, 85, 205, 96, 218, 153, 188, 194, 209, 255, 123, 255, 104, 242, 126],
        [86, 178, 165, 88, 210, 181, 132, 216, 240, 210, 226, 241, 244, 50, 255, 82],
    ],
    ("bicubic", 1.0, "squash", (256, 160)): [
        [108, 99, 0, 100, 27, 119, 91, 157, 189, 115, 186, 150, 133, 153, 4, 74],
        [98, 104, 137, 156, 0, 242, 196, 49, 197, 10, 255, 204, 255, 2, 165, 99],
        [105, 37, 100, 72, 151, 0, 160, 113, 203, 208, 255, 195, 212, 100, 0, 91],
    ],
    ("bicubic", 0.95, "center", (64, 48)): [
        [8, 99, 139, 207, 66, 88, 84, 217, 166, 149, 113, 171, 178, 159, 137, 86],
        [112, 180, 105, 86, 185, 231, 38, 211, 189, 138, 65, 198, 222, 248, 238, 7],
        [107, 19, 128, 63, 96, 130, 136, 255, 186, 241, 238, 89, 61, 255, 152, 78],
    ],
    ("bicubic", 0.9, "border", (64, 80)): [
        [54, 0, 137, 0, 4, 57, 92, 255, 124, 123, 198, 109, 86, 164, 252, 26],
        [128, 119, 117, 76, 128, 0, 66, 128, 102, 65, 139, 102, 76, 244, 11, 76],
        [128, 85, 145, 130, 128, 150, 175, 128, 102, 18, 205, 102, 253, 255, 93, 76],
    ],
    ("lanczos", 0.9, "squash", (64, 56)): [
        [21, 96, 104, 0, 31, 53, 249, 146, 177, 151, 196, 130, 86, 101, 101, 28],
        [112, 180, 137, 79, 26, 0, 125, 212, 194, 118, 198, 227, 82, 101, 244, 10],
        [90, 0, 44, 175, 130, 147, 155, 255, 193, 238, 194, 125, 9, 0, 186, 43],
    ],
}


def settings_of(case):
    interpolation, crop_fraction, crop_mode, image_size = case
    return Preprocessing(image_size, interpolation, crop_fraction, crop_mode, MEAN, STD)


each_case = pytest.mark.parametrize("case", EXPECTED, ids=str)


@each_case
def test_images_are_those_of_timm(case):
    settings = settings_of(case)
    result = pixels(settings([photo(*size, seed) for seed, size in enumerate(SIZES)]), settings)
    assert result.shape == (3, *case[-1], 3)
    result = result.reshape(3, -1)
    places = np.linspace(0, result.shape[1] - 1, 16).astype(int)
    np.testing.assert_allclose(result[:, places], EXPECTED[case], atol=2)


@each_case
@pytest.mark.parametrize("size", [*SIZES, (96, 96), (61, 400)], ids=str)
def test_layer_gives_the_same_images(case, size):
    settings = settings_of(case)
    if case[0] == "lanczos":
        with pytest.raises(ValueError, match="'bicubic' or 'bilinear', got interpolation='lanczos'"):
            settings.layer()
        return
    image = photo(*size)
    expected = settings(image)
    result = ops.convert_to_numpy(settings.layer()(image[None]))
    assert result.shape == expected.shape and result.dtype == expected.dtype == np.float32
    difference = np.abs(pixels(result, settings) - pixels(expected, settings))
    assert difference.max() < 1.01 and difference.mean() < 0.01


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="older Pillow resizes columns first")
@pytest.mark.parametrize("size", [(400, 300), (300, 400), (500, 90)], ids=str)
def test_layer_resizes_first_the_side_that_pillow_does(size):
    for settings in (Preprocessing(384, crop_mode="squash", crop_fraction=1.0), Preprocessing(64)):
        difference = pixels(settings.layer()(photo(*size)[None]), settings) - pixels(
            settings(photo(*size)), settings
        )
        assert np.abs(difference).max() < 1.01


@each_case
def test_layer_in_a_graph_of_unknown_size(case):
    if case[0] == "lanczos" or keras.backend.backend() != "tensorflow":
        pytest.skip("no such layer, or the backend has no tensors of unknown size")
    import tensorflow as tf

    layer = settings_of(case).layer()
    signature = [tf.TensorSpec((None, None, None, 3), "uint8")]
    graph = tf.function(layer, input_signature=signature)
    for size in [*SIZES, (400, 300), (61, 400)]:
        image = photo(*size)[None]
        np.testing.assert_allclose(graph(image), layer(image), atol=1e-5)


def test_layer_shapes_and_batches():
    layer = Preprocessing((64, 48)).layer(name="prepare")
    inputs = keras.Input((None, None, 3), dtype="uint8")
    outputs = layer(inputs)
    assert outputs.shape == (None, 64, 48, 3) and outputs.dtype == "float32" and layer.name == "prepare"
    model = keras.Model(inputs, outputs)
    batch = np.stack([photo(150, 200, seed) for seed in range(3)])
    result = ops.convert_to_numpy(model(batch))
    assert result.shape == (3, 64, 48, 3)
    np.testing.assert_allclose(result[2], ops.convert_to_numpy(model(batch[2:]))[0], atol=1e-5)
    np.testing.assert_allclose(model(batch.astype("float32")), result, atol=1e-5)
    np.testing.assert_allclose(model.predict(batch, verbose=0), result, atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64, 3), (2, 64, 64, 1), (2, 3, 64, 64), (2, 64, 64, None)], ids=str)
def test_layer_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\(b, h, w, 3\), got \("):
        Preprocessing(32).layer().build(shape)


def test_layer_round_trips(tmp_path):
    settings = Preprocessing((64, 48), "bilinear", 0.8, "border", MEAN, STD)
    layer = settings.layer()
    config = layer.get_config()
    again = PreprocessImages.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config and again.preprocessing == settings
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, settings.normalization()(layer(inputs)))
    model.save(tmp_path / "model.keras")
    image = photo(150, 200)[None]
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(image), model(image))


def test_layer_computes_in_float32_under_mixed_precision():
    settings = Preprocessing(64, mean=MEAN, std=STD)
    expected = settings(photo(150, 200))
    for policy, tolerance in (("mixed_float16", 2e-3), ("mixed_bfloat16", 2e-2)):
        layer = settings.layer(dtype=policy)
        outputs = layer(keras.Input((None, None, 3)))
        assert outputs.dtype == layer.compute_dtype == policy.removeprefix("mixed_")
        result = ops.cast(layer(ops.cast(photo(150, 200)[None], "float32")), "float32")
        step = 1 / 255 / min(STD)
        np.testing.assert_allclose(ops.convert_to_numpy(result), expected, rtol=tolerance, atol=1.01 * step)


@pytest.mark.parametrize("kind", ["layer", "normalization"])
def test_layers_leave_training_alone(kind):
    settings = Preprocessing(64)
    inputs = keras.Input((64, 64, 3))
    prepared = getattr(settings, kind)()(inputs)
    model = keras.Model(inputs, [prepared, keras.layers.Dropout(0.9)(prepared)])
    prepared, dropped = model(photo(64, 64)[None])
    np.testing.assert_array_equal(prepared, dropped)


def test_normalization_is_the_last_step_alone(tmp_path):
    settings = Preprocessing((64, 64), crop_fraction=1.0, mean=MEAN, std=STD)
    image = photo(64, 64)
    layer = settings.normalization()
    np.testing.assert_allclose(layer(image[None]), settings(image), atol=1e-5)
    assert isinstance(layer, keras.layers.Rescaling)
    again = keras.layers.Rescaling.from_config(json.loads(json.dumps(layer.get_config())))
    np.testing.assert_allclose(again(image[None]), settings(image), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_files_images_and_arrays_are_the_same(channels, tmp_path):
    settings = Preprocessing(64)
    array = np.concatenate([photo(80, 100), photo(80, 100, 1)], axis=-1)[..., :channels]
    image = Image.fromarray(array[..., 0] if channels == 1 else array)
    path = tmp_path / "Größe 猫 x.png"
    image.save(path)
    expected = settings(
        Image.fromarray(np.broadcast_to(array, (80, 100, 3)) if channels == 1 else array[..., :3])
    )
    float_array = (array + np.random.default_rng(0).uniform(-0.4, 0.4, array.shape)).clip(0, 255)
    for images in (path, str(path), image, array, array[None], array.astype("int64"), float_array):
        np.testing.assert_array_equal(settings(images), expected)
    np.testing.assert_array_equal(settings(ops.convert_to_tensor(array)), expected)
    mixed = settings([path, photo(33, 44), (image, array[None].repeat(2, 0))])
    assert mixed.shape == (5, 64, 64, 3)
    np.testing.assert_array_equal(mixed[[0, 2, 3, 4]], expected.repeat(4, 0))
    np.testing.assert_array_equal(mixed[1], settings(photo(33, 44))[0])


def test_modes_of_pillow(tmp_path):
    settings = Preprocessing((40, 50), crop_fraction=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    rgb = photo(40, 50)
    grey = rgb[..., 1]
    deep = (
        (grey * 257.0 + np.random.default_rng(0).uniform(-120, 120, grey.shape))
        .clip(0, 65535)
        .astype("uint16")
    )
    palette = Image.fromarray(rgb).quantize(16)
    expected = {
        "L": (Image.fromarray(grey), grey[..., None]),
        "LA": (Image.fromarray(grey).convert("LA"), grey[..., None]),
        "P": (palette, np.asarray(palette.convert("RGB"))),
        "I;16": (Image.fromarray(deep), grey[..., None]),
        "I": (Image.fromarray(grey.astype("int32") * 257), grey[..., None]),
        "I of bytes": (Image.fromarray(grey.astype("int32")), grey[..., None]),
        "F": (Image.fromarray(grey.astype("float32")), grey[..., None]),
        "1": (Image.fromarray(grey > 128), 255 * (grey > 128)[..., None]),
    }
    transparent = palette.copy()
    transparent.info["transparency"] = bytes([0, 128])
    expected["P with alpha"] = transparent, np.asarray(palette.convert("RGB"))
    for mode, (image, pixels) in expected.items():
        result = settings(image)[0] * 255
        np.testing.assert_allclose(result, np.broadcast_to(pixels, (40, 50, 3)), atol=1e-3, err_msg=mode)
    expected["I;16"][0].save(tmp_path / "deep.png")
    np.testing.assert_array_equal(settings(tmp_path / "deep.png"), settings(expected["I;16"][0]))
    dark = Image.fromarray(np.full((40, 50), 250, "uint16"))  # one of 255 after the scaling, not of 1
    np.testing.assert_allclose(settings(dark), 1 / 255, atol=1e-6)


def test_exif_orientation_is_applied(tmp_path):
    upright = photo(80, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of what is stored
    stored = Image.fromarray(np.rot90(upright))
    stored.save(tmp_path / "phone.png", exif=exif)
    settings = Preprocessing((40, 30))
    np.testing.assert_array_equal(settings(tmp_path / "phone.png"), settings(upright))
    assert np.abs(settings(tmp_path / "phone.png") - settings(stored)).max() > 0.5


def test_bad_files(tmp_path):
    settings = Preprocessing(32)
    path = tmp_path / "photo.jpg"
    Image.fromarray(photo(80, 60)).save(path)
    assert settings(path).shape == (1, 32, 32, 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    problems = {"photo.jpg": "truncated", "text.png": "not an image", "empty.png": "the file is empty"}
    for name, problem in problems.items():
        with pytest.raises(ValueError, match=f"{name}': .*{problem}"):
            settings(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="none.png"):
        settings(tmp_path / "none.png")


@pytest.mark.parametrize(
    "images, message",
    [
        ([], "empty list"),
        ([[photo(9, 9)], []], "empty list"),
        (None, "got None"),
        ({"image": 1}, r"got \{'image': 1\}"),
        (3.5, "got 3.5"),
        (photo(9, 9)[..., 0], r"\(h, w, c\) or .* got the shape \(9, 9\): channels are the last axis"),
        (photo(9, 9)[None, None], r"got the shape \(1, 1, 9, 9, 3\)"),
        (photo(9, 9).transpose(2, 0, 1), r"got the shape \(3, 9, 9\)"),
        (np.zeros((9, 9, 2), "uint8"), r"got the shape \(9, 9, 2\)"),
        (np.zeros((0, 9, 9, 3), "uint8"), r"got the shape \(0, 9, 9, 3\)"),
        (photo(9, 9) > 128, "got dtype bool"),
        (photo(9, 9).astype("complex64"), "got dtype complex64"),
        (photo(9, 9).astype("O"), "got dtype object"),
        (photo(9, 9) * np.float32(2), r"\[0, 255\], got 0.0 to 5.*: scale them"),
        (photo(9, 9).astype("float32") - 128, r"\[0, 255\], got -1"),
        (photo(9, 9).astype("int32") * 257, r"\[0, 255\], got 0 to 6"),
        (np.full((9, 9, 3), np.nan), r"\[0, 255\], got nan"),
        (photo(9, 9) / 255, "got floats up to 1.0: multiply them by 255"),
        (Image.fromarray(np.full((9, 9), 1e6, "float32")), r"\[0, 255\], got 1000000.0"),
    ],
)
def test_bad_images(images, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(32)(images)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_size": 0}, "`image_size`"),
        ({"image_size": (1, 2, 3)}, "`image_size`"),
        ({"interpolation": "random"}, "`interpolation` must be one of .*'bicubic'.* got 'random'"),
        ({"crop_mode": "centre"}, "`crop_mode` must be one of .* got 'centre'"),
        ({"crop_fraction": 0}, r"`crop_fraction` must be a number in \(0, 1\], got 0"),
        ({"crop_fraction": 1.1}, "`crop_fraction`"),
        ({"crop_fraction": True}, "`crop_fraction`"),
        ({"crop_fraction": "0.9"}, "`crop_fraction`"),
        ({"mean": 0.5}, "`mean` must be three numbers"),
        ({"mean": (0.5, 0.5)}, "`mean` must be three numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "`mean` must be three numbers"),
        ({"mean": "abc"}, "`mean` must be three numbers"),
        ({"std": (0.5, 0.5, 0)}, "`std` must be three positive numbers"),
        ({"std": (0.5, 0.5, -0.5)}, "`std` must be three positive numbers"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**{"image_size": 32, **arguments})


def test_settings_are_plain_values():
    settings = Preprocessing(32, mean=np.array(MEAN), std=list(STD))
    assert settings.image_size == (32, 32) and settings.mean == MEAN and settings.std == STD
    assert Preprocessing(**json.loads(json.dumps(settings.to_dict()))) == settings
    assert len({settings, Preprocessing(32, mean=MEAN, std=STD)}) == 1


def test_the_colour_around():
    assert Preprocessing(8, crop_mode="border", mean=(0.5, 0.4, 1)).fill == (128, 102, 255)
    assert Preprocessing(8, crop_mode="center", mean=(0.5, 0.4, 1)).fill == (0, 0, 0)


def test_extreme_proportions():
    for shape in ((2, 300, 3), (300, 2, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
        for mode in ("center", "squash", "border"):
            settings = Preprocessing(8, crop_mode=mode)
            result = settings(image)
            assert result.shape == (1, 8, 8, 3)
            difference = pixels(settings.layer()(image[None]), settings) - pixels(result, settings)
            assert np.abs(difference).max() < 1.01 or int(PIL.__version__.split(".")[0]) < 13


TIMM_TRANSFORMS = """
import json, sys
import numpy as np
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg

names, photos, results = json.load(open(sys.argv[1])), np.load(sys.argv[2]), {}
for name in names:
    overrides = {}
    if "+" in name:
        name, mode = name.split("+")
        overrides = {"crop_mode": mode, "input_size": (3, 96, 128)}
    config = resolve_data_config(overrides, pretrained_cfg=get_pretrained_cfg(name).to_dict())
    transform = create_transform(**config, is_training=False)
    name = "+".join([name, *overrides.get("crop_mode", "").split()])
    results[name] = np.stack([transform(Image.fromarray(photos[key])).permute(1, 2, 0) for key in photos])
np.savez(sys.argv[3], **results)
"""


@pytest.mark.parity
def test_parity_with_timm(tmp_path):
    names = {}  # one checkpoint for each distinct preprocessing, the largest images left out
    for architecture, tags in timm_table()["architectures"].items():
        for tag in tags:
            names.setdefault(get_preprocessing(f"{architecture}.{tag}"), f"{architecture}.{tag}")
    names = {name: settings for settings, name in names.items() if settings.image_size[0] <= 518}
    assert {settings.crop_mode for settings in names.values()} == {"center", "squash"}
    base = "vit_base_patch16_224.augreg2_in21k_ft_in1k"
    for mode in ("center", "squash", "border"):
        settings = get_preprocessing(base, image_size=(96, 128)).to_dict()
        names[f"{base}+{mode}"] = Preprocessing(**{**settings, "crop_mode": mode})
    photos = [photo(*size) for size in [*SIZES, (500, 375)]]
    np.savez(tmp_path / "photos.npz", *photos)
    (tmp_path / "names.json").write_text(json.dumps(list(names)))
    files = [tmp_path / name for name in ("names.json", "photos.npz", "results.npz")]
    run_python("-c", TIMM_TRANSFORMS, *files)
    with np.load(files[-1]) as results:
        assert sorted(results) == sorted(names) and len(names) > 20
        for name, settings in names.items():
            np.testing.assert_array_equal(settings(photos), results[name], err_msg=name)


@pytest.mark.parametrize("size", [(2, 3000), (3000, 3)])
def test_a_very_long_image_needs_no_more_memory_than_its_kept_part(monkeypatch, size):
    """The kept part alone is resized; at its borders the filter sees less, hence the tolerance."""
    from PIL import Image

    from vit_tf.preprocessing import transform

    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), "uint8")
    image = Image.fromarray(noise)
    settings = transform.Preprocessing((16, 24), crop_fraction=0.8)
    whole = np.asarray(settings.resize_and_crop(image)).astype(int)
    monkeypatch.setattr(transform, "LARGEST_RESIZED", 0)
    sizes = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *a, **k: sizes.append(size) or resize(self, size, *a, **k)
    )
    part = np.asarray(settings.resize_and_crop(image)).astype(int)
    assert sizes == [(24, 16)]
    assert np.abs(part - whole)[4:-4, 4:-4].max() <= 2  # rounded once more or once less
    assert np.abs(part - whole).mean() < 4


def test_pixels_of_what_the_model_sees():
    prepare = Preprocessing((8, 8), crop_fraction=1.0, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype("uint8")
    pixels = prepare.to_pixels(prepare(image))
    assert pixels.dtype == "float32"
    np.testing.assert_allclose(pixels, image, atol=1e-3)
    assert prepare.to_pixels(np.full((1, 2, 2, 3), 9.0)).max() == 255


@pytest.mark.slow
def test_files_are_preprocessed_and_found_without_keras():
    code = """if True:
        import sys
        import numpy as np
        from vit_tf.data import EvalTransform, find_images, load_cifar
        from vit_tf.preprocessing import get_preprocessing
        print(get_preprocessing("vit_base_patch16_224", 32)(np.zeros((8, 8, 3), "uint8")).shape)
        print({"keras", "grain", "matplotlib"}.intersection(sys.modules))
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["(1, 32, 32, 3)", "set()"], done.stderr


def test_normalize_is_the_formula_to_the_last_bit():
    settings = Preprocessing((5, 7), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype("uint8")
    mean, std = np.array([settings.mean, settings.std], "float32")
    for images in (pixels, pixels[:, :, ::-1], pixels.astype("float32")):
        before = images.copy()
        np.testing.assert_array_equal(
            settings.normalize(images), (before.astype("float32") / 255 - mean) / std
        )
        np.testing.assert_array_equal(images, before)
