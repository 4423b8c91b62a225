"""Decoding, resizing and cropping in an ONNX graph, compared with `Preprocessing`."""

import io

import keras
import numpy as np
import onnxruntime
import pytest
from conftest import randomize
from keras import ops
from PIL import Image

from vit_tf import build_vit
from vit_tf.deploy.onnx import write_onnx
from vit_tf.preprocessing import Preprocessing

SMALL = dict(
    image_size=(16, 24), patch_size=8, hidden_dim=12, num_layers=1, num_heads=3, mlp_dim=20, num_classes=5
)
SETTINGS = {
    "square": dict(image_size=16),
    "center": dict(image_size=(16, 24), crop_fraction=0.8),
    "squash": dict(image_size=(16, 24), crop_mode="squash", interpolation="bilinear"),
    "border": dict(image_size=(16, 24), crop_mode="border", mean=(0.1, 0.5, 0.9), crop_fraction=1.0),
    "border_and_crop": dict(image_size=(16, 24), crop_mode="border", crop_fraction=0.5),
}


def photo(height, width, seed=0):
    """A smooth image with an edge, as uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), "uint8"))
    pixels = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    pixels[: height // 2, : width // 3] = 255
    return pixels


@pytest.mark.fast_cases(3)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("size", [(61, 40), (30, 90), (9, 7)])
def test_images_are_resized_as_by_pillow(settings, size, tmp_path):
    preprocessing = Preprocessing(**settings)
    images = keras.Input((None, None, 3))
    write_onnx(keras.Model(images, preprocessing.layer()(images)), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    x = np.stack([photo(*size, seed) for seed in range(2)])
    (result,) = session.run(None, {"images": x.astype("float32")})
    difference = preprocessing.to_pixels(result) - preprocessing.to_pixels(preprocessing(x))
    assert np.abs(difference).max() < 1.01


def test_a_model_takes_an_encoded_image(tmp_path):
    extensions = pytest.importorskip("onnxruntime_extensions")
    model = randomize(build_vit("vit_b16", **SMALL))
    preprocessing = Preprocessing((16, 24))
    names = write_onnx(model, tmp_path / "model.onnx", preprocessing=preprocessing, encoded=True)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(extensions.get_library_path())
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options)
    assert [x.name for x in session.get_inputs()] == ["encoded"] and names == ("logits",)
    for kind, options in (("JPEG", {"subsampling": 0}), ("PNG", {})):
        file = io.BytesIO()
        Image.fromarray(photo(61, 40)).save(file, kind, **options)
        (result,) = session.run(None, {"encoded": np.frombuffer(file.getvalue(), "uint8")})
        expected = ops.convert_to_numpy(model(preprocessing(file.getvalue())))
        np.testing.assert_allclose(result, expected, atol=0.01 * np.abs(expected).max())


def test_other_interpolations_are_refused(tmp_path):
    model = build_vit("vit_b16", **SMALL)
    preprocessing = Preprocessing((16, 24), interpolation="lanczos")
    with pytest.raises(ValueError, match="resizes by 'bicubic' or 'bilinear', got 'lanczos'"):
        write_onnx(model, tmp_path / "model.onnx", preprocessing=preprocessing, encoded=True)
