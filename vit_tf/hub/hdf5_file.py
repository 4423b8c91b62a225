"""Reader of HDF5 files as Keras writes them (`.weights.h5`): the arrays stay in the file until used."""

from functools import partial
from math import prod

from vit_tf.checks import brief, shown
from vit_tf.hub.lazy_tensor import BFLOAT16, LazyTensor, Refused, kind_of, map_file

OPTIMIZER = "optimizer/"


def read_hdf5(path):
    """Returns the arrays of a file as `LazyTensor` by their paths in it, such as "layers/dense/vars/0".

    The state of an optimizer is left out.

    Raises:
        Refused: an array is compressed, is in another file or beyond the end of this one, or has no numbers.
        ValueError: the file is damaged.
    """
    size = path.stat().st_size
    try:
        datasets = plain_datasets(path)
    except OSError as error:  # HDF5's, also for damage
        raise ValueError(brief(error)) from error
    return {name: lazy(path, name, dataset, size) for name, dataset in datasets.items()}


def plain_datasets(path):
    """Returns {path in the file: (dtype, shape, offset)} of the arrays of a file, see `read_hdf5`."""
    import h5py

    links, items = {}, {}
    with h5py.File(path, "r") as file:
        file.visititems_links(lambda name, link: links.update({name: link}))
        file.visititems(lambda name, item: items.update({name: item}))
        for name, link in links.items():
            check_link(name, link)
        datasets = {name: item for name, item in items.items() if isinstance(item, h5py.Dataset)}
        result = {}
        for name, item in datasets.items():
            check_plain(name, item)
            if not name.startswith(OPTIMIZER):
                result[name] = item.dtype, tuple(item.shape or ()), item.id.get_offset()
        return result


def lazy(path, name, dataset, size):
    dtype, shape, offset = dataset
    if dtype.kind not in "biuf" and dtype != BFLOAT16:
        raise Refused(f"has {shown(name)} of type {shown(str(dtype))}, expected numbers")
    if prod(shape) and (offset is None or offset + prod(shape) * dtype.itemsize > size):
        raise Refused(f"has {shown(name)} of shape {shown(shape)} with less data: download or save it again")
    return LazyTensor(shape, partial(map_file, path, dtype, offset, shape), kind_of(dtype))


def check_link(name, link):
    """Raises a ValueError if a link leads to another file; HDF5 would follow the link."""
    import h5py

    if isinstance(link, h5py.ExternalLink):
        raise Refused(f"has {shown(name)}, a link to another file, {shown(link.filename)}")


def check_plain(name, dataset):
    """Raises a ValueError if values are in other files or compressed: Keras writes neither."""
    if dataset.external or dataset.is_virtual:
        raise Refused(f"has the values of {shown(name)} in another file")
    if dataset.chunks is not None:
        raise Refused(f"has {shown(name)} compressed in chunks, which may unpack to any size")
