"""Keras's `.weights.h5` files: loaded completely into a model, or not at all."""

import warnings
from collections import Counter

import keras

from vit_tf.checks import brief, listing, shown
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
    import h5py

    links, items = {}, {}
    with h5py.File(path, "r") as file:
        file.visititems_links(lambda name, link: links.update({name: link}))
        file.visititems(lambda name, item: items.update({name: item}))
        for name, link in links.items():
            check_link(name, link)
        datasets = {name: item for name, item in items.items() if isinstance(item, h5py.Dataset)}
        for name, item in datasets.items():
            check_plain(name, item)
        shapes = [tuple(item.shape) for name, item in datasets.items() if not name.startswith("optimizer")]
    loaded, expected = Counter(shapes), Counter(tuple(variable.shape) for variable in model.weights)
    if loaded != expected:
        parts = [f"{n} more of shape {shape} in the file" for shape, n in (loaded - expected).items()]
        parts += [f"{n} more of shape {shape} in the model" for shape, n in (expected - loaded).items()]
        raise ValueError(listing(parts))


def check_link(name, link):
    """Raises a ValueError if a link leads to another file; Keras would follow the link."""
    import h5py

    if isinstance(link, h5py.ExternalLink):
        raise ValueError(f"{shown(name)} is a link to another file, {shown(link.filename)}")


def check_plain(name, dataset):
    """Raises a ValueError if values are in other files or compressed: Keras writes neither."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{shown(name)} has its values in another file")
    if dataset.chunks is not None:
        raise ValueError(f"{shown(name)} is compressed in chunks, which may unpack to any size")
