"""What Keras's quantization costs on the packaged CIFAR-10 model: accuracy, changed answers and file size.

    python benchmarks/quantization.py --data cifar10.npz

`--data` takes what `scripts/train_cifar10.py --data` takes. Each quantized model is saved as `.keras`, loaded
again, and tested on all test images. Keras quantizes the kernels of dense layers. The convolutions of the
stem stay float32.
"""

import argparse
import os
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import vit_tf
from vit_tf import data
from vit_tf.commands import parser as cli

MODES = (None, "int8", "int4", "float8")


def main(arguments=None):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10")
    parser.add_argument("--limit", type=int, help="test only the first N images", metavar="N")
    args = parser.parse_args(arguments)
    test = data.load_cifar10(args.data)
    images, labels = test.x_test[: args.limit], test.y_test[: args.limit]
    print("| weights | accuracy | changed answers | `.keras` file, MB |\n|---|---:|---:|---:|")
    reference = None
    for mode in MODES:
        answers, megabytes = measure(mode, images)
        reference = answers if reference is None else reference
        accuracy, changed = (answers == labels).mean(), (answers != reference).mean()
        print(f"| {mode or 'float32'} | {accuracy:.2%} | {changed:.2%} | {megabytes:.2f} |", flush=True)


def measure(mode, images):
    """Returns the predicted classes of the quantized and reloaded model, and the size of its file in MB."""
    model = vit_tf.build_vit("vit_cifar10", weights="cifar10", include_preprocessing=True)
    if mode:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns of each layer that has no kernel
            model.quantize(mode)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        model.save(path)
        model, megabytes = keras.models.load_model(path), path.stat().st_size / 1e6
    return model.predict(images, batch_size=250, verbose=0).argmax(-1), megabytes


if __name__ == "__main__":
    cli.run(main)
