"""Vision Transformers for Keras: list, measure and convert models, classify images, train, explain.

    vit-tf list '*dinov2*'                             # variants whose names match
    vit-tf summary vit_b16 --image-size 384            # layers, parameters and FLOPs
    vit-tf predict cat.jpg --weights hf:timm/NAME      # the most likely classes of an image
    vit-tf convert hf:timm/NAME model.keras            # weights to another format

`vit-tf COMMAND --help` describes a command with its options and more examples.

SOURCE, of the weights, is one of:
    runs/NAME          the folder of a training run, or a folder with config.json and model.safetensors
    hf:OWNER/NAME      a repository on the Hugging Face hub, which is downloaded once
    weights.npz        a file: .safetensors, .npz, .pth, .pt, .bin, .ckpt; --model names its variant
    cifar10            the small CIFAR-10 model in this package

Exit codes: 0 done, 1 some inputs were skipped, 2 error, 130 interrupted.
Set VIT_TF_TRACEBACK=1 for the traceback of an error.
"""

import argparse
import sys
from importlib import import_module

from vit_tf.commands.parser import Parser, run

# Each is a module of this package with HELP, add_arguments(parser) and run(args), which returns the exit
# code. Its docstring describes the command. Neither importing it nor add_arguments() imports Keras.
COMMANDS = ("list", "summary", "predict", "evaluate", "convert", "finetune", "train", "explain")


def entry(*words):
    """Runs the command that the process was started with, and exits.

    Args:
        *words: come before the process's own arguments.
    """
    run(lambda: main([*words, *sys.argv[1:]]))


def main(arguments=None):
    """Runs a command and returns its exit code.

    Args:
        arguments: list of str; by default those of the process.
    """
    args = parse_arguments(sys.argv[1:] if arguments is None else list(arguments))
    return args.run(args)


def parse_arguments(arguments):
    parser = Parser("vit-tf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name in arguments[:1] if arguments[:1] and arguments[0] in COMMANDS else COMMANDS:
        module = import_module(f"vit_tf.commands.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser.parse_args(arguments)


if __name__ == "__main__":  # python -m vit_tf.commands.main
    entry()
