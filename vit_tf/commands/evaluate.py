"""Measure a model on labelled images: accuracy, top-5, quality of each class, calibration.

    vit-tf evaluate pets --weights runs/pets                     # the test images of the run
    vit-tf evaluate photos --weights hf:timm/NAME --out results  # one folder per class
    vit-tf evaluate cifar10                                      # CIFAR-10's test images
    vit-tf evaluate imagenet/val --weights hf:timm/NAME          # folders n01440764, n01443537, ...
    vit-tf evaluate pets --weights hf:timm/NAME --knn 20         # features, by their nearest neighbours
    vit-tf evaluate pets.parquet --knn 20                        # the same for what `vit-tf embed` wrote

DATA is a folder, zip, CSV or shards of labelled images, see `vit-tf finetune --help`; or cifar10, cifar100,
sample, or an .npz. If DATA has parts, the test images are evaluated, else the validation images, else all. If
the weights are those of a run on the same DATA, the parts are the run's.

The classes of DATA are matched with the labels of the model by name. Case, _ and - do not matter; ImageNet's
classes also match by WordNet ID and by synonym. FOLDER gets metrics.json, per_class.csv and confusion.png (or
average_precision.png for a model with several labels per image).

--knn K needs no head: each image is classified by the K training images with the most similar features, which
vote with the weight exp(cosine similarity / 0.07), as DINO measures it. If DATA has no parts, each image is
classified by all others.
"""

import sys
from pathlib import Path

from vit_tf import files, terminal
from vit_tf.checks import check_int, printable
from vit_tf.commands import knn_evaluation
from vit_tf.commands.options import add_model, add_pooling, add_weights, check_source
from vit_tf.commands.startup import import_backend

HELP = "measure accuracy and calibration on labelled images"
MOST_DRAWN = 100  # classes of a confusion matrix


def add_arguments(parser):
    parser.add_argument("data", metavar="DATA", help="labelled images, see above")
    add_weights(parser)
    add_model(parser)
    parser.add_argument(
        "--part", choices=("test", "validation", "train", "all"), help="part of DATA, see above"
    )
    parser.add_argument(
        "--match",
        choices=("name", "known", "order"),
        default="name",
        help="name: each class of DATA must be a label of the model (default); known: other classes are left "
        "out; order: the classes of DATA, sorted, are the model's outputs in their order",
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images per batch (32)")
    parser.add_argument("--flip-tta", action="store_true", help="average over an image and its mirror image")
    parser.add_argument("--knn", type=int, metavar="K", help="accuracy of K nearest neighbours, see above")
    add_pooling(parser)
    parser.add_argument(
        "--image-size", metavar="PIXELS", help="of the features of --knn: side, or HEIGHTxWIDTH"
    )
    parser.add_argument(
        "--max-bad", type=float, default=0.01, metavar="X", help="largest share of unreadable files (0.01)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write metrics and figures to this folder")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON only")


def run(args):
    check_int("--batch-size", args.batch_size, 1)
    if args.out and args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out must be a folder, and {str(args.out)!r} is a file")
    knn_evaluation.check_arguments(args)
    if args.knn is not None:
        metrics = knn_evaluation.measure(args)
        return report(args, metrics, knn_evaluation.summary(metrics))
    check_source(args.weights, args.model)
    from vit_tf.training import evaluation

    images, part = evaluation.load_images(args.data, args.part, args.weights)
    import_backend()
    from vit_tf import classifier

    loaded = classifier.load(args.weights, args.model)
    task, labels = evaluation.task_of(loaded), evaluation.label_names(loaded)
    outputs = evaluation.match_classes(images.class_names, labels, args.match)
    images = evaluation.readable(images, args.max_bad)
    images, targets = evaluation.encode(images, outputs, len(labels), task)
    metrics = {
        "data": args.data,
        "part": part,
        "weights": args.weights,
        "images": len(targets),
        **evaluation.measure(loaded, images, targets, labels, task, args.batch_size, args.flip_tta),
    }
    return report(args, metrics, summary(metrics, task))


def report(args, metrics, text):
    """Prints the metrics and writes --out; returns the exit code."""
    from vit_tf.training.metrics import per_class

    if args.out:
        write(metrics, args.out, f"{Path(metrics['weights']).name} on {printable(Path(args.data).name)}")
    print(terminal.json_text(metrics) if args.json else f"{per_class(metrics)}\n{text}")
    return 0


def summary(metrics, task):
    """Returns the main metrics as a line of text."""
    parts = [task.summary(metrics)]
    if "expected_calibration_error" in metrics:
        parts.append(f"calibration error {metrics['expected_calibration_error']:.2%}")
    return f"{', '.join(parts)} ({metrics['images']:,} images: {metrics['part']})"


def write(metrics, out, title):
    """Writes metrics.json, per_class.csv and a figure."""
    import numpy as np

    from vit_tf import plots

    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / "metrics.json", metrics)
    columns = list(next(iter(metrics["classes"].values())))
    rows = ([name, *values.values()] for name, values in metrics["classes"].items())
    files.write_csv(out / "per_class.csv", ["class", *columns], rows)
    if "confusion" not in metrics:
        plots.save(plots.average_precisions(metrics["classes"], title), out / "average_precision.png")
    elif len(metrics["classes"]) <= MOST_DRAWN:
        matrix = np.array(metrics["confusion"])
        plots.save(plots.confusion(matrix, list(metrics["classes"]), title), out / "confusion.png")
    else:
        print(f"note: no confusion.png of more than {MOST_DRAWN} classes", file=sys.stderr)
