"""Predictions of image files, compared with the runtime on images that are in memory already.

    vit-tf export hf:timm/NAME exported --format openvino
    python benchmarks/predict.py exported photos          # files below the folder photos

In each round the runtime computes batches of one array; then `Predictor.stream` reads, resizes and classifies
as many files, whose rows go to a CSV file as in `vit-tf predict --csv`; then the files are read and resized
without a model. The table has medians of images per second, with the lowest and the highest. If the folder
has fewer files, they are repeated.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from vit_tf.commands import parser as cli
from vit_tf.commands.prediction_table import PredictionTable
from vit_tf.cores import num_cores
from vit_tf.deploy import Predictor
from vit_tf.deploy.inputs import each_image
from vit_tf.deploy.pipeline import map_ahead, thread_pool

ROWS = {
    "in memory": "the runtime alone, images in memory",
    "files": "files: read, classified, written as CSV",
    "reading": "files: read and resized only",
}


def parse_arguments():
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a folder of `vit-tf export`, or weights for Keras")
    parser.add_argument("images", help="a folder of images")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--files", type=int, default=1000, help="number of files (1,000)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, help="threads that compute, and that read")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cli.check_counts(args, "files", "batch_size", "threads", "rounds")
    return args


def run_in_memory(predictor, paths, batch):
    for _ in range(len(paths) // len(batch)):
        predictor.runtime.run(batch)
    return len(paths) // len(batch) * len(batch)


def run_files(predictor, paths, table):
    with tempfile.TemporaryDirectory() as folder, table.output(Path(folder) / "out.csv") as write:
        for path, predictions in predictor.stream(paths):
            write(path, predictions)
    return len(paths)


def run_reading(predictor, paths):
    with thread_pool(predictor.threads) as pool:
        for _, image in map_ahead(pool, predictor.read, paths, 2 * predictor.batch_size):
            image.result()
    return len(paths)


def rate(function, *arguments):
    """Returns the images per second of a function that returns how many images it took."""
    start = time.perf_counter()
    return function(*arguments) / (time.perf_counter() - start)


def main():
    args = parse_arguments()
    predictor = Predictor(args.weights, args.runtime, batch_size=args.batch_size, threads=args.threads)
    paths = list(itertools.islice(itertools.cycle(list(each_image(args.images))), args.files))
    batch = np.stack([predictor.read(path) for path in paths[: args.batch_size]])
    table = PredictionTable(predictor, 5)
    run_reading(predictor, paths)  # fills the cache of the disk
    run_in_memory(predictor, paths[: 3 * args.batch_size], batch)
    rates = {name: [] for name in ROWS}
    for _ in range(args.rounds):
        rates["in memory"].append(rate(run_in_memory, predictor, paths, batch))
        rates["files"].append(rate(run_files, predictor, paths, table))
        rates["reading"].append(rate(run_reading, predictor, paths))
    print_rates(args.weights, predictor, len(paths), rates, ROWS)


def print_rates(weights, predictor, count, rates, rows):
    """Prints a table of rates.

    Args:
        weights: the name of the model.
        count: the number of files.
        rates: dict from the keys of `rows` to images per second, one per round.
        rows: dict from keys to descriptions; "in memory" is what the others are compared with.
    """
    reference = statistics.median(rates["in memory"])
    print(
        f"{weights} by {predictor.runtime.name}, {count:,} files, batch {predictor.batch_size}, "
        f"{predictor.threads} threads on {num_cores()} cores\n"
    )
    print("| | images/s | lowest to highest | of the runtime alone |\n|---|---:|---:|---:|")
    for name, text in rows.items():
        values = rates[name]
        middle = statistics.median(values)
        spread = f"{min(values):.1f} to {max(values):.1f}"
        print(f"| {text} | {middle:.1f} | {spread} | {middle / reference:.1%} |")


if __name__ == "__main__":
    cli.run(main)
