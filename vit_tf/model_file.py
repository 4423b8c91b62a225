"""`.keras` files, which `model.save` writes: whole models."""

import json
import os
import warnings
import zipfile

import keras

from vit_tf.checks import brief, shown
from vit_tf.data.augment import batch  # noqa: F401  # registers the layers that models may have inside
from vit_tf.preprocessing.layer import PreprocessImages  # noqa: F401
from vit_tf.structure import ViTStructure

CONFIG, LARGEST_CONFIG = "config.json", 1 << 26  # bytes; the file is a zip


def read_model(path: str | os.PathLike) -> keras.Model:
    """Returns the model of a `.keras` file. Keras reads it in its safe mode.

    Raises:
        ValueError: the file cannot be read, or holds no model of `build_vit` or one that extends it.
    """
    name = repr(os.fspath(path))
    try:
        check_classes(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the optimizer's state, which is not wanted
            model = keras.models.load_model(path, compile=False)
    except MemoryError:
        raise
    except Exception as error:  # Keras and h5py can raise nearly anything for a damaged file
        raise ValueError(f"{name} cannot be read as a Keras model: {brief(error, 300)}") from error
    try:
        ViTStructure(model, nested=True)
    except ValueError as error:
        raise ValueError(f"{name} holds another model: {error}") from error
    return model


def check_classes(path):
    """Raises a ValueError for a file with classes that are neither Keras's nor registered by vit_tf."""
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo(CONFIG).file_size > LARGEST_CONFIG:
            raise ValueError(f"its {CONFIG} has more than {LARGEST_CONFIG:,} bytes")
        config = json.loads(archive.read(CONFIG))
    config.pop("compile_config", None)  # which is not read
    for item in each_dict(config):
        registered, module = item.get("registered_name"), str(item.get("module") or "builtins")
        if "class_name" not in item:
            continue
        is_keras = module.partition(".")[0] in ("keras", "builtins")
        if not is_keras and keras.saving.get_registered_object(registered) is None:
            raise ValueError(f"it has the class {shown(registered or item['class_name'])} of {shown(module)}")


def each_dict(value):
    """Yields the dicts in plain values, at any depth."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
