"""Classify images: the most likely classes of each.

    vit-tf predict cat.jpg                                    # by the CIFAR-10 model in this package
    vit-tf predict cat.jpg --weights hf:timm/NAME             # by published weights
    vit-tf predict photos 'more/*.png' --weights runs/pets    # images in a folder, and of a pattern
    find . -name '*.jpg' | vit-tf predict - --csv labels.csv  # paths from stdin, one per line
    vit-tf predict photos --weights EXPORTED --runtime openvino --csv a.csv --resume

SOURCE may also be a folder of `vit-tf export`. Results are written while the command runs: after Ctrl-C the
output has whole lines for the images so far, and --resume continues with the others.
Images that cannot be read are named on stderr and left out. The exit code is then 1, or 2 if no image could
be classified. A star marks a label that reaches its threshold; such labels are always printed. A regression
model gives its values.
"""

import os
import sys
from contextlib import contextmanager

from vit_tf import terminal
from vit_tf.checks import brief, check_int, check_number, printable, require
from vit_tf.commands.options import (
    DEFAULT_WEIGHTS,
    add_model,
    add_weights,
    check_new_file,
    parse_image_size,
)
from vit_tf.commands.parser import check_counts
from vit_tf.commands.prediction_table import PredictionTable
from vit_tf.commands.runtime_options import add_runtime, check_runtime, import_runtime

HELP = "classify images"


def add_arguments(parser):
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="files, folders (of shards, too), patterns such as 'photos/*.jpg', or - for a list of paths on "
        "stdin",
    )
    add_weights(parser)
    add_model(parser)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="number of classes per image (5)")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="lowest probability of a predicted label; default, for models with several labels per image: as "
        "stored with the weights, or 0.5",
    )
    add_runtime(parser)
    parser.add_argument(
        "--image-size",
        metavar="PIXELS",
        help="for a folder of `vit-tf export` that takes several sizes: which",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print only JSON: a list, one line per image")
    output.add_argument("--csv", metavar="FILE", help="write one row per image to FILE; - prints CSV only")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="replace FILE if it exists")
    existing.add_argument(
        "--resume",
        action="store_true",
        help="continue FILE, of the same weights: leave out the images that have a row in it",
    )


def run(args):
    """Returns the exit code: 0, 1 if some images have no prediction, 2 if all of them."""
    runtime = check_arguments(args)
    paths, num_problems = find_images(args.images)
    if not paths:
        return 2
    if args.weights == DEFAULT_WEIGHTS:
        print("note: cifar10 is a small model of ten classes: --weights takes others", file=sys.stderr)
    predictor = open_predictor(args, runtime)
    table = PredictionTable(predictor, args.top)
    done = table.open_rows(args.csv) if args.resume else set()
    if args.resume:
        paths = [path for path in paths if str(path) not in done]
        if not paths:
            print(f"every image has a row in {printable(args.csv)}")
            return 1 if num_problems else 0
    is_scrolling = sys.stdout.isatty() and args.csv in (None, "-")  # the results show the progress
    bar = terminal.track(paths, "predicting", disable=is_scrolling or len(paths) <= args.batch_size)
    count = 0
    with output_of(args, table) as write:
        for path, predictions in predictor.stream(bar, args.top, on_error=print_problem):
            write(path, predictions)
            count += 1
    if args.csv not in (None, "-"):
        print(f"wrote {count:,} rows to {printable(args.csv)}")
    if not count and not done:
        return 2
    return 1 if num_problems or count < len(paths) else 0


def check_arguments(args):
    """Returns the name of the runtime; raises a ValueError for arguments that cannot be used."""
    check_int("--top", args.top, 1)
    check_counts(args, "batch_size", "threads")
    if args.threshold is not None:
        check_number("--threshold", args.threshold, "[0, 1]")
    if args.resume and args.csv in (None, "-"):
        raise ValueError("--resume continues a file: add --csv FILE")
    if args.csv not in (None, "-"):
        check_new_file("--csv", args.csv, args.force or args.resume)
    return check_runtime(args.runtime, args.weights, args.model)


def open_predictor(args, runtime):
    import_runtime(runtime)
    from vit_tf.deploy.predictor import Predictor

    predictor = Predictor(
        args.weights,
        args.runtime,
        batch_size=args.batch_size,
        threads=args.threads,
        thresholds=args.threshold,
        variant=args.model,
        image_size=parse_image_size(args.image_size),
    )
    predictor.require_head()
    return predictor


def find_images(arguments):
    """Returns the paths of the images that arguments name, and the number of arguments without an image."""
    from vit_tf.data.image_paths import find_image_paths

    names = []
    for argument in arguments:
        names += paths_from_stdin() if argument == "-" else [argument]
    paths, problems, notes = find_image_paths(names)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for problem in problems:
        print_error(problem)
    return paths, len(problems)


def paths_from_stdin():
    """Returns the paths that stdin lists: one per line, or separated by NUL as of `find -print0`."""
    text = sys.stdin.buffer.read()
    paths = [os.fsdecode(path) for path in text.split(b"\0" if b"\0" in text else b"\n") if path.strip()]
    require(paths, "- reads paths from stdin, one per line, and there is none")
    return paths


def print_problem(image, error):
    is_path = isinstance(image, str)  # which the error names
    print_error(error if is_path else f"{image}: {error}")


def print_error(error):
    print(f"error: {brief(error)}", file=sys.stderr)


# ---------------------------------------------------------------------------------------------------
# Output: each context gives a function `(path, predictions)` that writes the lines of an image
# ---------------------------------------------------------------------------------------------------
def output_of(args, table):
    """Returns the context of the output that the options ask for."""
    if args.csv is None:
        return json_output() if args.json else text_output()
    return table.output(args.csv, append=args.resume)


@contextmanager
def text_output():
    def write(path, predictions):
        lines = [
            f"{'*' if each.selected else ' '} {each.text:>6}  {printable(each.label)}" for each in predictions
        ]
        print("\n".join([printable(path), *lines]), flush=True)

    yield write


@contextmanager
def json_output():
    """The list is complete JSON even if it ends early."""
    separator = "["

    def write(path, predictions):
        nonlocal separator
        content = {"image": str(path), "predictions": [each.as_dict() for each in predictions]}
        print(f"{separator}\n {terminal.json_text(content, indent=None)}", end="", flush=True)
        separator = ","

    try:
        yield write
    finally:
        print("[]" if separator == "[" else "\n]")
