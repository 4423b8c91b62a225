"""`.weights.h5`, Keras's own files: all of one into all of a model, or nothing."""

import warnings
from collections import Counter

import keras

from vit_tf.weights.report import LoadReport


def load(model, path):
    """Loads a `.weights.h5` file that a model of the same shape saved; see `load_weights`."""
    if not path.is_file():
        raise ValueError(f"no weights at {str(path)!r}: there is no such file")
    before = [keras.ops.convert_to_numpy(variable.value) for variable in model.variables]
    try:
        check_shapes(model, path)
        with warnings.catch_warnings():
            # Keras only warns where layers find no weights in the file.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        for variable, value in zip(model.variables, before):
            variable.assign(value)
        raise ValueError(
            f"the weights in {str(path)!r} do not fit {model.name}: build the model with the variant "
            f"and the options that saved them ({' '.join(str(error).split())[:300]})"
        ) from error
    return LoadReport(str(path), "keras", [variable.path for variable in model.weights])


def check_shapes(model, path):
    """Raises a ValueError where file and model have other shapes; Keras would leave surplus ones out."""
    import h5py

    found = []
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: (
                found.append(tuple(item.shape))
                if isinstance(item, h5py.Dataset) and not name.startswith("optimizer")
                else None
            )
        )
    theirs, ours = Counter(found), Counter(tuple(variable.shape) for variable in model.weights)
    if theirs != ours:
        parts = [f"{n} more of shape {shape} in the file" for shape, n in (theirs - ours).items()]
        parts += [f"{n} more of shape {shape} in the model" for shape, n in (ours - theirs).items()]
        raise ValueError("; ".join(parts))
