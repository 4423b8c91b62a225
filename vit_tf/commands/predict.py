"""Classify images: the most likely classes of each.

    vit-tf predict cat.jpg                                  # by the CIFAR-10 model in this package
    vit-tf predict cat.jpg --weights hf:timm/NAME           # by published weights
    vit-tf predict photos 'more/*.png' --weights runs/pets  # all images in a folder, and of a pattern

Images that cannot be read are named on stderr, and the others are classified. The exit code is then 1, and 2
if no image could be classified. A star marks the labels of a multi-label model that reach their thresholds;
these are always printed. A regression model gives its values.
"""

import sys

from vit_tf import terminal
from vit_tf.checks import brief
from vit_tf.commands.options import add_model, check_source
from vit_tf.commands.startup import import_backend

HELP = "classify images"


def add_arguments(parser):
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, folders, or patterns such as 'photos/*.jpg'"
    )
    parser.add_argument(
        "--weights", metavar="SOURCE", help="see `vit-tf --help`; default: the CIFAR-10 model in this package"
    )
    add_model(parser)
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many classes per image (5)")
    parser.add_argument("--json", action="store_true", help="print JSON alone")


def run(args, batch_size=8):
    """Returns the exit code: 0, 1 if some images have no answer, 2 if none has one."""
    from vit_tf.data.image_paths import find_image_paths

    if args.top < 1:
        raise ValueError(f"--top must be at least 1, got {args.top}")
    paths, problems, notes = find_image_paths(args.images)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for problem in problems:
        print_error(problem)
    if not paths:
        return 2
    if args.weights is None:
        print("no --weights: this is the package's small model, for CIFAR-10's ten classes", file=sys.stderr)
    source = args.weights or "cifar10"
    check_source(source, args.model)
    import_backend()
    from vit_tf.classifier import load

    classifier = load(source, args.model)
    answered, results = [], []
    bar = terminal.track(paths, "predicting", disable=not args.json or len(paths) <= batch_size)
    for names, images in readable_batches(bar, classifier.preprocessing, batch_size):
        batch_results = classifier.decode(classifier.model.predict_on_batch(images), args.top)
        if not args.json:
            print_predictions(names, batch_results, as_json=False)
            sys.stdout.flush()
        answered += names
        results += batch_results
    if args.json:
        print_predictions(answered, results, as_json=True)
    if not answered:
        return 2
    return 1 if problems or len(answered) < len(paths) else 0


def readable_batches(paths, preprocessing, batch_size):
    """Yields ([paths], images (b, h, w, c)) of the files that can be read, and names the others on stderr."""
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


def print_predictions(images, results, as_json):
    if as_json:
        content = [
            {
                "image": str(image),
                "predictions": [prediction.as_dict() for prediction in predictions],
            }
            for image, predictions in zip(images, results)
        ]
        print(terminal.json_text(content))
        return
    for image, predictions in zip(images, results):
        print(terminal.printable(image))
        for prediction in predictions:
            print(prediction_line(prediction))


def prediction_line(prediction):
    """Returns a `Prediction` or `Value` as text; labels that reach their threshold have a star."""
    star = "*" if prediction.selected else " "
    return f"{star} {prediction.text:>6}  {terminal.printable(prediction.label)}"
