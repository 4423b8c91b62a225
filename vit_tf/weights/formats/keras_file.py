"""Keras's `.weights.h5` files: loaded completely into a model, or not at all."""

import warnings
from collections import Counter

import keras

from vit_tf.checks import brief, listing
from vit_tf.hub.hdf5_file import plain_datasets
from vit_tf.weights.load_report import LoadReport


def load(model, path):
    """Loads a `.weights.h5` file of the same architecture; see `load_weights`."""
    if not path.is_file():
        raise ValueError(f"no weights at {str(path)!r}: there is no such file")
    before = [keras.ops.convert_to_numpy(variable.value) for variable in model.variables]
    try:
        check_shapes(model, path)
        with warnings.catch_warnings():
            # Keras only warns if the file has no weights for a layer.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except Exception as error:  # Keras and h5py can raise nearly anything for a damaged file
        for variable, value in zip(model.variables, before):
            variable.assign(value)
        raise ValueError(
            f"the weights in {str(path)!r} do not fit {model.name}: build the model with the variant "
            f"and the options that saved them ({brief(error)})"
        ) from error
    return LoadReport(str(path), "keras", [variable.path for variable in model.weights])


def check_shapes(model, path):
    """Raises a ValueError if the shapes in file and model differ; Keras would ignore surplus weights."""
    shapes = [shape for _, shape, _ in plain_datasets(path).values()]
    loaded, expected = Counter(shapes), Counter(tuple(variable.shape) for variable in model.weights)
    if loaded != expected:
        parts = [f"{n} more of shape {shape} in the file" for shape, n in (loaded - expected).items()]
        parts += [f"{n} more of shape {shape} in the model" for shape, n in (expected - loaded).items()]
        raise ValueError(listing(parts))
