"""Makes vit_tf/assets/cifar10_sample.png, the embedded sample of CIFAR-10: 2,000 images, lossless.

    python tools/make_cifar10_sample.py CIFAR10.npz [OUT]

CIFAR10.npz is any source that `vit_tf.data.load_cifar` reads. The sheet is 50 images wide and 40 high
(1600 x 1280 pixels). Rows 4k to 4k + 3 belong to class k: its first 160 training images in the order of the
data, then its first 40 test images. The position of an image thus gives its label. The same source always
gives the same pixels. The script takes a few seconds; the exit code is 2 for a wrong argument.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from vit_tf.commands.parser import Parser, run
from vit_tf.data import SAMPLE_PATH, load_cifar
from vit_tf.data.cifar import SAMPLE_TEST_PER_CLASS, SAMPLE_TRAIN_PER_CLASS
from vit_tf.files import atomic_path

SHEET_COLUMNS = 50


def main():
    parser = Parser(description="Makes the embedded sample of CIFAR-10.")
    parser.add_argument("source", help="an .npz, a folder or an archive of CIFAR-10, or cifar10 to download")
    parser.add_argument("out", nargs="?", type=Path, default=SAMPLE_PATH, help="default: %(default)s")
    parser.error = lambda message: parser.exit(2, f"error: {message}; see --help\n")
    try:
        arguments = parser.parse_args()
        if arguments.source == "sample":
            raise ValueError("source is 'sample': the sample is made from the full data set, give its path")
        write_png(arguments.out, sample_sheet(load_cifar(arguments.source)))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {arguments.out} ({arguments.out.stat().st_size:,} bytes)")
    return 0


def sample_sheet(data):
    """Returns the sheet of an `ImageData` of 32 x 32 RGB images, uint8 (40 * 32, 50 * 32, 3)."""
    if data.x_train.shape[1:] != (32, 32, 3):
        size = data.x_train.shape[1:]
        raise ValueError(f"images of {data.name!r} are {size}: the sample needs CIFAR-10's (32, 32, 3)")
    cells = []
    for label, class_name in enumerate(data.class_names):
        for images, labels, wanted in (
            (data.x_train, data.y_train, SAMPLE_TRAIN_PER_CLASS),
            (data.x_test, data.y_test, SAMPLE_TEST_PER_CLASS),
        ):
            chosen = np.flatnonzero(labels == label)[:wanted]
            if len(chosen) < wanted:
                found = f"class {class_name!r} of {data.name!r} has {len(chosen)} images in one part"
                raise ValueError(f"{found}: the sample needs {wanted}, give the full data set")
            cells.append(images[chosen])
    rows = np.concatenate(cells).reshape(-1, SHEET_COLUMNS, 32, 32, 3)  # [40, 50, 32, 32, 3]
    return rows.swapaxes(1, 2).reshape(-1, SHEET_COLUMNS * 32, 3)  # [40 * 32, 50 * 32, 3]


def write_png(path, sheet):
    """Writes the sheet atomically."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: the sample is a lossless PNG, give a name that ends in .png")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}, make it first")
    with atomic_path(path) as partial:
        Image.fromarray(sheet).save(partial, format="PNG", optimize=True)


if __name__ == "__main__":
    run(main)
