"""Embed the images of a folder: one vector per image, for search, near-duplicates, k-NN and clustering.

    vit-tf embed photos --weights hf:timm/NAME --out photos.parquet
    vit-tf embed photos --weights runs/pets --pooling avg --out photos.npz     # needs no pyarrow
    vit-tf embed photos --weights EXPORTED --runtime openvino --out photos.npz
    vit-tf embed photos --weights hf:timm/NAME --out photos.parquet --resume   # continues, or adds new images

FILE has a row per image: its path below FOLDER, its class if FOLDER has one folder per class or files such as
cat.12.jpg, and its vector. It also says which weights, pooling and preprocessing were used, so that
`vit-tf search` embeds a query in the same way.

Until all images are done, the vectors lie in FILE.part beside FILE. After Ctrl-C, a kill or a full disk,
--resume continues there. --resume with a whole FILE adds the images that have no row in it. Images that
cannot be read are named on stderr and left out. The exit code is then 1, or 2 if no image could be read.
"""

import errno
import os
import sys
from bisect import bisect_left
from pathlib import Path

from vit_tf import terminal
from vit_tf.checks import brief, check_choice, printable, require, shown
from vit_tf.commands.options import (
    DEFAULT_WEIGHTS,
    add_model,
    add_pooling,
    add_weights,
    check_new_file,
    check_pooling,
    parse_image_size,
)
from vit_tf.commands.parser import check_counts
from vit_tf.commands.runtime_options import add_runtime, check_runtime, import_runtime
from vit_tf.data.containers import StoredImage

HELP = "write a vector per image of a folder"


def add_arguments(parser):
    parser.add_argument(
        "folder", metavar="FOLDER", help="all images below it, or in its shards, are embedded"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="ends in .parquet or .npz")
    add_weights(parser)
    add_model(parser)
    add_pooling(parser)
    parser.add_argument(
        "--image-size", metavar="PIXELS", help="side, or HEIGHTxWIDTH such as 224x288; default: the model's"
    )
    parser.add_argument("--normalize", action="store_true", help="divide each vector by its L2 norm")
    parser.add_argument(
        "--dtype", default="float32", metavar="D", help="of the stored vectors: float32 (default) or float16"
    )
    add_runtime(parser, "a folder of `vit-tf export` of a model without a head")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="replace FILE and what is left of a run")
    existing.add_argument(
        "--resume", action="store_true", help="continue after a stop, or add new images to FILE: see above"
    )


def run(args):
    """Returns the exit code: 0, 1 if some images have no vector, 2 if all of them."""
    runtime = check_arguments(args)
    paths, labels, sharded = find_images(args.folder)
    if args.weights == DEFAULT_WEIGHTS:
        print("note: cifar10 is a small model of ten classes: --weights takes others", file=sys.stderr)
    extractor = open_extractor(args, runtime)
    from vit_tf.embeddings.vector_file import read_embeddings
    from vit_tf.embeddings.vector_info import VectorInfo
    from vit_tf.embeddings.vector_journal import journal_folder, opened

    info = VectorInfo.of(extractor, args.weights, args.folder, args.model, args.dtype)
    earlier = read_embeddings(args.out) if args.resume and os.path.exists(args.out) else None
    if earlier is not None:
        earlier.info.check_same(info, args.out, strict=True)
        if not journal_folder(args.out).exists() and not set(paths) - set(earlier.paths):
            print(f"every image has a row in {printable(args.out)}")
            return 0
    try:
        with opened(args.out, info, args.resume) as journal:
            if earlier is not None:
                take_over(journal, earlier)
            num_bad = embed(journal, extractor, args.folder, paths, labels, sharded)
            if not journal.paths:
                return 2
            journal.write(args.out)
            journal.remove()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
            raise
        kept = f"{journal_folder(args.out)} keeps the vectors so far: make room, and add --resume"
        raise OSError(error.errno, f"{error.strerror}; {kept}", str(args.out)) from error
    print(f"wrote {len(journal.paths):,} vectors of {info.num_features:,} values to {printable(args.out)}")
    return 1 if num_bad else 0


def check_arguments(args):
    """Returns the name of the runtime; raises a ValueError for arguments that cannot be used."""
    from vit_tf.embeddings.vector_file import check_name
    from vit_tf.embeddings.vector_info import DTYPES
    from vit_tf.embeddings.vector_journal import journal_folder

    check_counts(args, "batch_size", "threads")
    check_choice("--dtype", args.dtype, DTYPES)
    check_pooling(args.pooling)
    parse_image_size(args.image_size)
    check_name(args.out)
    check_new_file("--out", args.out, args.force or args.resume)
    folder = journal_folder(args.out)
    problem = f"{str(folder)!r} holds the vectors of a run that was stopped"
    is_free = args.force or args.resume or not folder.exists()
    require(is_free, f"{problem}: add --resume to continue, or --force to begin again")
    if not os.path.isdir(args.folder):
        kind = "is no folder" if os.path.exists(args.folder) else "does not exist"
        raise ValueError(f"{shown(args.folder)} {kind}: give a folder of images")
    return check_runtime(args.runtime, args.weights, args.model)


def find_images(folder):
    """Returns the paths of the images in a folder, a dict of their classes, and the `ImageFiles` of shards.

    The layout gives the classes. The third is None for a folder without shards.
    """
    from vit_tf.data.directories import walk
    from vit_tf.data.directory_layout import label_images, left_out_as_no_images, natural_key
    from vit_tf.data.image_files import find_shards
    from vit_tf.data.shards.shard_index import is_shard_folder
    from vit_tf.data.splits import label_cells

    tree = None if is_shard_folder(Path(folder)) else walk(folder)
    if sharded := find_shards(Path(folder), tree):
        return list(sharded.names), dict(zip(sharded.names, label_cells(sharded))), sharded
    left_out = [f"{shown(folder)}: {note}" for note in left_out_as_no_images(tree)]
    require(tree.images, "; ".join([f"no image in the folder {shown(folder)}", *left_out]))
    for note in left_out:
        print(f"note: {note}", file=sys.stderr)
    try:
        labelled, _ = label_images(tree)
    except ValueError:  # a folder without classes
        labelled = {}
    labels = {name: label for name, (label, _) in labelled.items()}
    return sorted(tree.images, key=natural_key), labels, None


def open_extractor(args, runtime):
    import_runtime(runtime)
    from vit_tf.embeddings.extractor import features

    return features(
        args.weights,
        args.pooling,
        normalize=args.normalize,
        image_size=parse_image_size(args.image_size),
        runtime=args.runtime,
        batch_size=args.batch_size,
        threads=args.threads,
        variant=args.model,
    )


def take_over(journal, earlier):
    """Adds the rows of a whole file that a journal does not have."""
    known = set(journal.paths)
    for paths, labels, vectors in earlier.batches():
        rows = [i for i, path in enumerate(paths) if path not in known]
        journal.append([paths[i] for i in rows], [labels[i] for i in rows], vectors[rows])


def embed(journal, extractor, folder, paths, labels, sharded=None):
    """Adds the vectors of the images that have no row yet; returns the number of unreadable images."""
    problems = []

    def report(path, error):
        problems.append(path)
        name = "" if sharded is None else f"{shown(names.get(path, path))}: "
        print(f"error: {name}{brief(error)}", file=sys.stderr)

    known, names, waiting = set(journal.paths), {}, []
    for path in (path for path in paths if path not in known):
        if is_text(path):
            waiting.append(path)
        else:
            report(path, f"{shown(path)}: its name is no UTF-8, rename it")
    if sharded is None:
        files = [Path(folder, path) for path in waiting]
    else:
        files = [StoredImage(sharded, bisect_left(sharded.names, path)) for path in waiting]
    names = dict(zip(files, waiting))
    bar = terminal.track(files, "embedding", disable=len(files) <= extractor.predictor.batch_size)
    for batch, vectors in extractor.batches(bar, report):
        done = [names[file] for file in batch]
        journal.append(done, [labels.get(name) for name in done], vectors)
    return len(problems)


def is_text(name):
    """Whether a file name is text, as the columns of Parquet are."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
