"""Options that several commands share."""

import os
from pathlib import Path

from vit_tf.checks import check_choice, shown
from vit_tf.embeddings.poolings import POOLINGS
from vit_tf.preprocessing.image_formats import SIGNATURE_BYTES, detect_format
from vit_tf.variants import get_variant

DEFAULT_WEIGHTS = "cifar10"


def add_weights(parser):
    """Adds --weights, the model of the command."""
    parser.add_argument(
        "--weights",
        metavar="SOURCE",
        default=DEFAULT_WEIGHTS,
        help="see `vit-tf --help`; default: %(default)s",
    )


def add_model(parser):
    """Adds --model, the variant of weights that do not name it."""
    shapes = "default: the only one whose weights have the shapes of SOURCE's"
    parser.add_argument(
        "--model", metavar="NAME", help=f"variant of the weights if SOURCE has no config.json; {shapes}"
    )


def add_pooling(parser):
    """Adds --pooling, how tokens become a vector."""
    parser.add_argument(
        "--pooling",
        metavar="P",
        help="token: the class token; avg: the mean of the patches; gem: their generalised mean; cls+avg: "
        "token and avg; default: the features that the head of the model reads",
    )


def check_pooling(pooling):
    """Raises a ValueError for an unknown --pooling."""
    check_choice("--pooling", pooling, POOLINGS, optional=True)


def check_source(source, variant=None):
    """Raises a ValueError for an unknown variant, and for weights that do not exist.

    It reads the configuration alone, without Keras.
    """
    from vit_tf.deploy.manifest import check_is_not_exported
    from vit_tf.hub import read_source_config

    if variant is not None:
        get_variant(variant)
    if os.path.isfile(source):
        check_is_no_image(source)
    check_is_not_exported(source)
    read_source_config(source)


def check_is_no_image(path):
    """Raises a ValueError for an image in the place of weights."""
    with open(path, "rb") as file:
        start = file.read(SIGNATURE_BYTES)
    try:
        format = detect_format(start)
    except ValueError:
        return
    raise ValueError(f"{path!r} is an image ({format.name}), not weights: see SOURCE in `vit-tf --help`")


def check_new_file(name, path, force):
    """Raises a ValueError, with the argument's name, unless a file can be written at its path."""
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {str(path.parent)!r} for {name} {path.name!r}: make it first")
    if path.is_dir():
        raise ValueError(f"{name} must be a file, and {str(path)!r} is a folder")
    if path.exists() and not force:
        raise ValueError(f"{str(path)!r} already exists: choose another name, or add --force")


def add_sizes(parser):
    """Adds --image-size and --num-classes, see `sizes`."""
    parser.add_argument(
        "--image-size", metavar="PIXELS", help="side, or HEIGHTxWIDTH such as 224x288; default: the model's"
    )
    parser.add_argument(
        "--num-classes", metavar="N", type=int, help="another number than the model's starts a new head"
    )


def sizes(args):
    """Returns the options of `add_sizes` that were given, as arguments of `build_vit`."""
    options = {} if args.num_classes is None else {"num_classes": args.num_classes}
    size = parse_image_size(args.image_size)
    return options if size is None else {**options, "image_size": size}


def parse_image_size(text):
    """Returns (height, width) of "224" or "224x288"; None of None."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--image-size must be 224 or 224x288 (height x width), got {shown(text)}")
    return tuple(int(part) for part in (parts * 2)[:2])
