"""Classify images: the most likely classes of each.

    vit-tf predict cat.jpg                                    # by the CIFAR-10 model in this package
    vit-tf predict cat.jpg --weights hf:timm/NAME             # by published weights
    vit-tf predict photos 'more/*.png' --weights runs/pets    # images in a folder, and of a pattern
    find . -name '*.jpg' | vit-tf predict - --csv labels.csv  # paths from stdin, one per line

Results are written while the command runs: after Ctrl-C the output has whole lines for the images so far.
Images that cannot be read are named on stderr and left out. The exit code is then 1, or 2 if no image could
be classified. A star marks a label that reaches its threshold; such labels are always printed. A regression
model gives its values.
"""

import csv
import os
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from vit_tf import terminal
from vit_tf.checks import brief, check_int, check_number, printable
from vit_tf.commands.options import DEFAULT_WEIGHTS, add_model, add_weights, check_new_file, check_source
from vit_tf.commands.startup import import_backend

HELP = "classify images"


def add_arguments(parser):
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="files, folders, patterns such as 'photos/*.jpg', or - for a list of paths on stdin",
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
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="images in memory (8)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print only JSON: a list, one line per image")
    output.add_argument("--csv", metavar="FILE", help="write one row per image to FILE; - prints CSV only")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")


def run(args):
    """Returns the exit code: 0, 1 if some images have no prediction, 2 if all of them."""
    check_arguments(args)
    paths, problems = find_images(args.images)
    if not paths:
        return 2
    if args.weights == DEFAULT_WEIGHTS:
        print("note: cifar10 is a small model of ten classes: --weights takes others", file=sys.stderr)
    import_backend()
    from vit_tf.classifier import load

    classifier = with_threshold(load(args.weights, args.model), args.threshold)
    is_scrolling = sys.stdout.isatty() and args.csv in (None, "-")  # the results show the progress
    bar = terminal.track(paths, "predicting", disable=is_scrolling or len(paths) <= args.batch_size)
    count = 0
    with output_of(args, classifier) as write:
        for names, images in readable_batches(bar, classifier.preprocessing, args.batch_size):
            outputs = classifier.model.predict_on_batch(images)
            for name, predictions in zip(names, classifier.decode(outputs, args.top)):
                write(name, predictions)
                count += 1
    if args.csv not in (None, "-"):
        print(f"wrote {count:,} rows to {printable(args.csv)}")
    if not count:
        return 2
    return 1 if problems or count < len(paths) else 0


def check_arguments(args):
    check_int("--top", args.top, 1)
    check_int("--batch-size", args.batch_size, 1)
    if args.threshold is not None:
        check_number("--threshold", args.threshold, "[0, 1]")
    if args.csv not in (None, "-"):
        check_new_file("--csv", args.csv, args.force)
    check_source(args.weights, args.model)


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
    return [os.fsdecode(path) for path in text.split(b"\0" if b"\0" in text else b"\n") if path.strip()]


def with_threshold(classifier, threshold):
    """Returns a `Classifier` whose labels all have this threshold; None keeps what they have."""
    from vit_tf.labels import REGRESSION

    if threshold is None:
        return classifier
    if classifier.problem_type == REGRESSION:
        raise ValueError("--threshold is for classes, and this is a regression model: leave it out")
    return replace(classifier, thresholds=(threshold,) * classifier.model.output_shape[-1])


def output_of(args, classifier):
    """Returns the context manager of the output that the options select."""
    from vit_tf.labels import REGRESSION

    if args.csv is None:
        return json_output() if args.json else text_output()
    is_classifier = classifier.problem_type != REGRESSION
    num_labels = max(classifier.model.output_shape[-1], len(classifier.labels or ()))
    return csv_output(args.csv, min(args.top, num_labels) if is_classifier else num_labels, is_classifier)


def readable_batches(paths, preprocessing, batch_size):
    """Yields ([paths], images (b, h, w, c)) of the files that can be read; names the others on stderr."""
    import numpy as np

    names, images = [], []
    for path in paths:
        try:
            images.append(preprocessing(path))
            names.append(path)
        except (ValueError, OSError) as error:
            print_error(error)
        if len(names) == batch_size:
            yield names, np.concatenate(images)
            names, images = [], []
    if names:
        yield names, np.concatenate(images)


def print_error(error):
    print(f"error: {brief(error)}", file=sys.stderr)


# ---------------------------------------------------------------------------------------------------
# Output: each context gives a function `(path, predictions)` that writes the lines of an image
# ---------------------------------------------------------------------------------------------------
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


@contextmanager
def csv_output(path, columns, is_classifier):
    """Each row has the image, the predicted labels joined by |, and labels with their probabilities.

    Args:
        path: of the file, or - for stdout.
        columns: int, how many labels have columns.
        is_classifier: bool; the row of a regression has the image and the labels with their values.
    """
    header = ["image", "predicted"] if is_classifier else ["image"]
    for i in range(1, columns + 1):
        header += [f"label_{i}", f"probability_{i}" if is_classifier else f"value_{i}"]
    options = dict(newline="", encoding="utf-8", errors="surrogateescape", buffering=1)
    with nullcontext(sys.stdout) if path == "-" else open(path, "w", **options) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)

        def write(path, predictions):
            row = [path, "|".join(predicted_labels(predictions))] if is_classifier else [path]
            for label, number in predictions[:columns]:
                row += [label, f"{number:.6g}"]
            writer.writerow(row)

        yield write


def predicted_labels(predictions):
    """Returns the labels that reach their thresholds; without thresholds the likeliest one."""
    if predictions[0].selected is None:
        return [predictions[0].label]
    return [each.label for each in predictions if each.selected]
