"""Compares the packaged CIFAR-10 model in each export format and precision with Keras, on test images.

    python benchmarks/export.py --data cifar10.npz --limit 2000

`--data` takes what `scripts/train_cifar10.py --data` takes. Each exported folder is read by its own runtime.
The table has the size of the folder, the largest difference of the logits relative to the largest logit, the
share of images with the same predicted class, and the accuracy.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import vit_tf
from vit_tf import data
from vit_tf.commands import parser as cli
from vit_tf.deploy.agreement import compare, run_batches
from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.folders import folder_size
from vit_tf.deploy.runtimes import open_runtime

SOURCE, BATCH_SIZE = "cifar10", 250
EXPORTS = [(name, precision) for name in FORMATS for precision in FORMATS[name].precisions]


def main(arguments=None):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10")
    parser.add_argument("--limit", type=int, help="only the first N test images", metavar="N")
    args = parser.parse_args(arguments)
    cli.check_counts(args, "limit")
    test = data.load_cifar(args.data)
    classifier = vit_tf.load(SOURCE)
    images = classifier.preprocessing(test.x_test[: args.limit])
    labels = test.y_test[: args.limit]
    expected = run_batches(lambda batch: (classifier.model.predict_on_batch(batch),), images, BATCH_SIZE)
    print("| format | precision | MB | largest difference | same class | accuracy |")
    print("|---|---|---:|---:|---:|---:|")
    print(f"| Keras | float32 | | | | {(expected[0].argmax(1) == labels).mean():.2%} |")
    for name, precision in EXPORTS:
        if name == "web":  # the same file as that of ONNX
            continue
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out")
            manifest = vit_tf.export(SOURCE, out, format=name, precision=precision)
            outputs = run_batches(open_runtime(out, manifest).run, images, BATCH_SIZE)
            megabytes = folder_size(out) / 1e6
        agreement = compare(outputs, expected)
        accuracy = (outputs[0].argmax(1) == labels).mean()
        difference, same = agreement["largest_difference"], agreement["top1_agreement"]
        print(f"| {name} | {precision} | {megabytes:.1f} | {difference:.1e} | {same:.2%} | {accuracy:.2%} |")


if __name__ == "__main__":
    cli.run(main)
