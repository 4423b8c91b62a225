"""What `vit-tf export` and `vit-tf quantize` share: from SOURCE to a folder OUT for another runtime."""

from pathlib import Path

from vit_tf.checks import printable
from vit_tf.commands.options import add_model, check_source


def add_folder_options(parser):
    parser.add_argument("source", metavar="SOURCE", help="the weights, see `vit-tf --help`")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument(
        "--preprocessing", action="store_true", help="normalise in the graph, which then takes uint8 pixels"
    )
    add_model(parser)
    parser.add_argument("--force", action="store_true", help="replace an exported folder OUT")


def check_folder_options(args):
    """Raises a ValueError unless SOURCE can be read and OUT can be written, without Keras."""
    from vit_tf.deploy.folders import check_new_folder

    check_new_folder(args.out, args.force)
    check_source(args.source, args.model)


def say(line):
    """Prints the line of a stage at once."""
    print(printable(line), flush=True)
