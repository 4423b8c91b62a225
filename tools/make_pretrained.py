"""Puts the model of a CIFAR-10 run into the package, in float16, as `weights="cifar10"`.

    vit-tf train --data cifar10.npz --preset long --out runs/pretrained
    python tools/make_pretrained.py runs/pretrained --data cifar10.npz

The file is written to a temporary folder, read back and tested on all test images of CIFAR-10. It is copied
into the package only if its accuracy equals that of the run, and its size is at most 8 MB.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from vit_tf import classifier, data, files, terminal
from vit_tf.commands import parser as cli
from vit_tf.hub.sources import PACKAGED

MOST_BYTES = 8_000_000
TOLERANCE = 0.001  # of accuracy: rounding to float16, and the run's own bfloat16


def main(arguments=None):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run of `vit-tf train`")
    parser.add_argument("--data", required=True, help="CIFAR-10, as in that run")
    parser.add_argument("--out", type=Path, default=PACKAGED["cifar10"], help="default: %(default)s")
    args = parser.parse_args(arguments)
    images = data.load_cifar(args.data)
    if images.name == "sample":
        raise ValueError("--data is the sample: give the full CIFAR-10, whose test images decide")
    metrics, config = (read_json(args.run, name) for name in ("metrics.json", "model/config.json"))

    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out {str(args.out)!r} is a file, and must be a folder")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent) as place:
        folder = Path(place) / "stored"
        size = store(args.run / "model", folder, config)
        rehearse(folder, images, args.out)
        accuracy = test(folder, images.x_test, images.y_test)
        if accuracy < metrics["accuracy"] - TOLERANCE:
            raise ValueError(
                f"the stored model has {accuracy:.2%} accuracy, and the run had {metrics['accuracy']:.2%}"
            )
        add_results(folder, accuracy, len(images.y_test))
        install(folder, args.out)
    print(
        f"{terminal.printable(args.out)}: {size:,} bytes, test accuracy {accuracy:.2%} "
        f"({len(images.y_test):,} images)"
    )


def rehearse(folder, images, out):
    """Runs all that follows the long test on a few images, so that an error is found before the test."""
    accuracy = test(folder, images.x_test[:8], images.y_test[:8])
    add_results(folder, accuracy, 8)
    install(folder, folder.parent / "installed")
    if out.exists():
        tempfile.TemporaryDirectory(dir=out).cleanup()  # as `install` makes one there


def read_json(run, name):
    path = run / name
    if not path.is_file():
        raise ValueError(f"there is no {str(path)!r}: give the folder of a finished run of `vit-tf train`")
    return json.loads(path.read_text())


def store(source, folder, config):
    """Writes the classifier in the folder `source` to `folder` in float16; returns the size of the file."""
    loaded = classifier.load(source)
    about = config["vit_tf"]
    classifier.save(
        folder,
        loaded.model,
        about["variant"],
        about["hyperparameters"],
        loaded.preprocessing,
        loaded.labels,
        dtype="float16",
    )
    size = (folder / "model.safetensors").stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"the file has {size:,} bytes, at most {MOST_BYTES:,} were expected")
    return size


def test(folder, images, labels):
    """Returns the accuracy of the classifier in a folder on images (n, h, w, c) and their labels (n,)."""
    loaded = classifier.load(folder)
    right = 0
    for start in range(0, len(labels), 500):
        batch = slice(start, start + 500)
        logits = loaded.model.predict_on_batch(loaded.preprocessing(list(images[batch])))
        right += int((logits.argmax(-1) == labels[batch].reshape(-1)).sum())
    return right / len(labels)


def add_results(folder, accuracy, num_images):
    config = json.loads((folder / "config.json").read_text())
    results = {"test_accuracy": round(accuracy, 4), "test_images": num_images}
    files.write_json(folder / "config.json", {**config, "results": results})


def install(folder, out):
    """Copies the model into the folder `out`."""
    out.mkdir(exist_ok=True)
    for name in (
        "model.safetensors",
        "config.json",
    ):  # the config last: it makes the folder readable
        with files.atomic_path(out / name) as partial:
            shutil.copyfile(folder / name, partial)


if __name__ == "__main__":
    cli.run(main)
