"""The options of commands that compute with weights or with an exported folder, on any runtime."""

from vit_tf.checks import check_choice
from vit_tf.commands.options import check_source
from vit_tf.commands.startup import import_backend

TENSORFLOW = ("keras", "savedmodel")  # the runtimes for which Keras's backend is imported


def add_runtime(parser, folders="a folder of `vit-tf export`"):
    """Adds --runtime, --batch-size and --threads."""
    parser.add_argument(
        "--runtime",
        metavar="R",
        default="auto",
        help=f"what computes: keras for weights; openvino, onnxruntime, litert or savedmodel for {folders}; "
        "default: auto, the fastest that is installed",
    )
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="images per batch (8)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads that compute, and that read; default: all cores"
    )


def check_runtime(runtime, source, variant=None):
    """Returns the name of the runtime that predicts with a source: an exported folder, or weights.

    Raises:
        ValueError: the runtime is unknown, is not installed or does not read the source; or see
            `check_source`.
    """
    from vit_tf.deploy.manifest import exported_folder, read_manifest
    from vit_tf.deploy.runtimes.opening import AUTO, RUNTIMES, choose_keras, choose_runtime

    check_choice("--runtime", runtime, (*RUNTIMES, AUTO))
    folder = exported_folder(source)
    if folder is not None:
        return choose_runtime(read_manifest(folder), runtime)
    name = choose_keras(source, runtime)
    check_source(source, variant)
    return name


def import_runtime(name):
    """Imports Keras and its backend if a runtime needs them."""
    if name in TENSORFLOW:
        import_backend()
