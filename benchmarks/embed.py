"""Embedding of image files, compared with the model on images that are in memory already.

    python benchmarks/embed.py hf:facebook/dinov2-small photos --image-size 224

In each round the model computes batches of one array; then as many files are read, resized, embedded and
written as a file of embeddings, as by `vit-tf embed`; then the files are read and resized without a model.
The table has medians of images per second, with the lowest and the highest. If the folder has fewer files,
they are repeated.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
from predict import print_rates, rate, run_in_memory, run_reading

import vit_tf
from vit_tf.commands import parser as cli
from vit_tf.commands.embed import embed
from vit_tf.deploy.inputs import each_image
from vit_tf.embeddings import VectorInfo
from vit_tf.embeddings.vector_journal import opened

ROWS = {
    "in memory": "the model alone, images in memory",
    "files": "files: read, embedded, written",
    "reading": "files: read and resized only",
}


def parse_arguments():
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights for Keras, or a folder of `vit-tf export` without a head")
    parser.add_argument("images", help="a folder of images")
    parser.add_argument("--image-size", type=int, metavar="PIXELS")
    parser.add_argument("--ending", default="npz", choices=("npz", "parquet"), help="of the written file")
    parser.add_argument("--files", type=int, default=1000, help="number of files (1,000)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cli.check_counts(args, "files", "batch_size", "rounds")
    return args


def run_files(extractor, info, paths, ending):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, f"x.{ending}")
        with opened(out, info, resume=False) as journal:
            embed(journal, extractor, "/", paths, {})
            journal.write(out)
            return len(journal.paths)


def main():
    args = parse_arguments()
    extractor = vit_tf.features(args.weights, image_size=args.image_size, batch_size=args.batch_size)
    predictor = extractor.predictor
    files = (str(Path(path).absolute()) for path in each_image(args.images))
    paths = list(itertools.islice(itertools.cycle(list(files)), args.files))
    batch = np.stack([predictor.read(path) for path in paths[: args.batch_size]])
    info = VectorInfo.of(extractor, args.weights, args.images)
    run_reading(predictor, paths)  # fills the cache of the disk
    run_in_memory(predictor, paths[: 3 * args.batch_size], batch)
    rates = {name: [] for name in ROWS}
    for _ in range(args.rounds):
        rates["in memory"].append(rate(run_in_memory, predictor, paths, batch))
        rates["files"].append(rate(run_files, extractor, info, paths, args.ending))
        rates["reading"].append(rate(run_reading, predictor, paths))
    print_rates(args.weights, predictor, len(paths), rates, ROWS)


if __name__ == "__main__":
    cli.run(main)
