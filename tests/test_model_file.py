"""`.keras` files: what is read, and what is refused in one line."""

import re
import zipfile

import keras
import numpy as np
import pytest
from support.saved_models import images, small_vit

from vit_tf import load, load_weights

pytestmark = pytest.mark.every_backend


def rewritten(source, target, change):
    """Writes a .keras file whose config.json is changed by a function of its text."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content.decode()) if name == "config.json" else content)
    return target


def test_a_whole_model(tmp_path):
    path = tmp_path / "model.keras"
    model = small_vit()
    model.compile("adam", "categorical_crossentropy")
    model.save(path)
    loaded = load(path)
    assert loaded.preprocessing.image_size == (32, 48) and loaded.labels is None
    batch = images(model)
    np.testing.assert_array_equal(loaded.model(batch), model(batch))
    assert load(path, "deit_base_patch16_224").preprocessing != loaded.preprocessing
    for change, message in (
        (lambda text: text[:100], "cannot be read as a Keras model"),
        (lambda text: text.replace("vit_tf>PatchEncoder", "x>Y"), "has the class .x>Y. of .vit_tf.layers"),
        (foreign, "has the class .* of 'subprocess'"),
        (lambda text: text.replace('"name": "vit_base_patch16_224"', '"name": "mine"'), "called 'mine'"),
    ):
        with pytest.raises(ValueError, match=message):
            load(rewritten(path, tmp_path / "changed.keras", change))


def foreign(text):
    return re.sub(
        r'"module": "[^"]*", "class_name": "Dense"', '"module": "subprocess", "class_name": "P"', text
    )


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("content, message", [(b"", "cannot be read"), (b"PK\3\4", "cannot be read")])
def test_files_that_are_no_model(tmp_path, content, message):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(path)
    with pytest.raises(ValueError, match="this is a whole model, for `vit_tf.load`"):
        load_weights(small_vit(), path)


@pytest.mark.tensorflow_only
def test_another_model_and_one_without_a_head(tmp_path):
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]).save(path)
    with pytest.raises(ValueError, match="model.keras' holds another model: 'sequential.*no encoder blocks"):
        load(path)
    small_vit(num_classes=0).save(path)
    with pytest.raises(ValueError, match="has no head"):
        load(path)
    assert load(path, headless=True).labels is None
