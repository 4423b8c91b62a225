"""`vit-tf evaluate --knn`: the accuracy of the nearest labelled images, by features that no head reads."""

import sys
import zipfile
from pathlib import Path

import numpy as np

from vit_tf import terminal
from vit_tf.checks import brief, check_int, printable, require, shown
from vit_tf.commands.options import check_pooling, parse_image_size
from vit_tf.commands.runtime_options import check_runtime, import_runtime
from vit_tf.data.containers import StoredImage
from vit_tf.embeddings.knn import TEMPERATURE, knn_votes
from vit_tf.embeddings.vector_file import ENTRY


def check_arguments(args):
    """Raises a ValueError for options that do not fit each other."""
    if args.knn is None:
        given = [f"--{name}" for name in ("pooling", "image-size") if vars(args)[name.replace("-", "_")]]
        require(not given, f"{' and '.join(given)} are for the features of --knn: add --knn 20")
        return
    check_int("--knn", args.knn, 1)
    check_pooling(args.pooling)
    is_plain = args.match == "name" and not args.flip_tta
    require(is_plain, "--match and --flip-tta are for the classes of a head, which --knn does not read")


def measure(args):
    """Returns the metrics as a dict ready for JSON.

    Each image of the part is classified by its nearest training images. If DATA has no parts, or is a file of
    embeddings, each image is classified by all others.
    """
    from vit_tf.training.metrics import evaluate

    if is_embeddings_file(args.data):
        vectors, labels, names, details = stored_vectors(args.data)
        gallery = None
    else:
        (vectors, labels), gallery, names, details = embed(args)
    known, classes = gallery or (vectors, labels)
    votes = knn_votes(known, classes, vectors if gallery else None, args.knn, num_classes=len(names))
    return {
        "data": args.data,
        **details,
        "images": len(labels),
        "gallery": len(classes) - (gallery is None),
        "k": args.knn,
        "temperature": TEMPERATURE,
        **evaluate(votes, labels, names),
    }


def summary(metrics):
    """Returns the main metrics as a line of text."""
    top5 = f", top-5 {metrics['top5_accuracy']:.2%}" if len(metrics["classes"]) > 5 else ""
    images = f"{metrics['images']:,} images: {metrics['part']}; {metrics['gallery']:,} to compare with"
    return f"k-NN accuracy {metrics['accuracy']:.2%}{top5} (k {metrics['k']}; {images})"


# ---------------------------------------------------------------------------------------------------
# Vectors
# ---------------------------------------------------------------------------------------------------
def embed(args):
    """Returns ((vectors, labels) of the part, of the gallery or None, class names, details)."""
    from vit_tf.training import evaluation

    runtime = check_runtime("auto", args.weights, args.model)
    images, part = evaluation.load_images(args.data, args.part, args.weights)
    has_gallery = part not in ("all", "train")
    sets = [images]
    if has_gallery:
        sets.append(evaluation.load_images(args.data, "train", args.weights, notes=False)[0])
    problem = "--knn needs one class per image, and the images of DATA have several"
    require(not images.is_multi_label, problem)
    import_runtime(runtime)
    from vit_tf.embeddings.extractor import features

    extractor = features(
        args.weights,
        args.pooling,
        image_size=parse_image_size(args.image_size),
        batch_size=args.batch_size,
        variant=args.model,
    )
    embedded = [embed_images(extractor, each, args.max_bad) for each in sets]
    details = {"part": part, "weights": args.weights, "pooling": args.pooling}
    return embedded[0], embedded[1] if has_gallery else None, images.class_names, details


def embed_images(extractor, images, max_bad):
    """Returns (vectors (n, d), labels (n,)) of the images that can be read; the others are named on stderr.

    Raises:
        ValueError: there are more unreadable images than the fraction `max_bad`.
    """
    if not hasattr(images, "names"):  # arrays
        return extractor.embed(terminal.track(images.pixels, "embedding")), images.labels
    problems, vectors, rows = [], [], []

    def report(image, error):
        problems.append(image)
        name = printable(images.names[image.index])
        print(f"left out: {name}: {printable(brief(error))}", file=sys.stderr)

    stored = [StoredImage(images, i) for i in range(len(images.names))]
    for image, vector in extractor.stream(terminal.track(stored, "embedding"), report):
        vectors.append(vector)
        rows.append(image.index)
    problem = f"{len(problems):,} of {len(stored):,} images cannot be read, more than {max_bad:.2%}"
    hint = "repair or remove them, or raise --max-bad"
    require(rows and len(problems) <= max_bad * len(stored), f"{problem}: {hint}")
    return np.stack(vectors), images.labels[rows]


def is_embeddings_file(path):
    """Whether DATA is what `vit-tf embed` wrote, and not an .npz of images."""
    if path.lower().endswith(".parquet"):
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return path.lower().endswith(".npz") and f"{ENTRY}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def stored_vectors(path):
    """Returns (vectors, labels, class names, details) of the labelled images of an embeddings file."""
    from vit_tf.data.directory_layout import encode_labels
    from vit_tf.embeddings.vector_file import read_embeddings

    embeddings = read_embeddings(path)
    rows = [i for i, label in enumerate(embeddings.labels) if label]
    left_out = len(embeddings) - len(rows)
    problem = f"{shown(path)} has no labels: embed a folder with one folder per class"
    require(rows, problem)
    if left_out:
        print(f"note: {left_out:,} images of {printable(Path(path).name)} have no label", file=sys.stderr)
    names, labels = encode_labels([embeddings.labels[i] for i in rows])
    info = embeddings.info
    details = {"part": "all", "weights": info.source, "pooling": info.pooling}
    return embeddings.vectors[rows], labels, names, details
