"""Vision Transformers for Keras 3: use published weights, train your own, and look inside.

    vit-tf predict cat.jpg --weights hf:timm/NAME         # the most likely classes of an image
    vit-tf finetune pets/ --weights hf:timm/NAME          # train on a folder with one folder per class
    vit-tf evaluate pets/ --weights runs/pets-TIME        # accuracy on its test images
    vit-tf explain cat.jpg --weights runs/pets-TIME       # the patches that the answer comes from
    vit-tf train --data cifar10 --minutes 10              # train a small model from scratch
    vit-tf summary vit_b16                                # parameters and FLOPs
    vit-tf plan vit_b16 --device h100 --devices 8         # time and memory of training on other machines
    vit-tf embed photos/ --out photos.parquet             # a vector per image, for search
    vit-tf export runs/pets-TIME out --format onnx        # for ONNX Runtime, OpenVINO, LiteRT, ...

`vit-tf COMMAND --help` describes a command, with its options and more examples.

SOURCE, in these commands, names weights:
    runs/NAME          the folder of a training run, or a folder with config.json and model.safetensors
    hf:OWNER/NAME      a repository on the Hugging Face hub, which is downloaded once
    weights.npz        a file: .safetensors, .npz, .pth, .pt, .bin or .ckpt; --model names its variant, which
                       is found by the shapes of the weights if only one has them
    model.keras        a model that Keras saved; not for finetune, summary and convert
    cifar10            the small CIFAR-10 model in this package

Exit codes: 0 done, 1 some inputs were skipped, 2 error, 130 interrupted. An error is one line on stderr; set
VIT_TF_TRACEBACK=1 for its traceback.
"""

import argparse
import sys
from importlib import import_module

# Each is a module of this package with HELP, add_arguments(parser) and run(args), which returns the exit
# code. Its docstring describes the command. Neither importing it nor add_arguments() imports Keras.
COMMANDS = tuple(
    "predict evaluate finetune train shard embed search duplicates explain list summary plan convert export "
    "quantize serve".split()
)


def entry(*words):
    """Runs the command of the process's arguments, which follow `words`, and exits."""
    try:
        from vit_tf.commands.parser import run
    except KeyboardInterrupt:  # later ones are handled by `run`
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    run(lambda: main([*words, *sys.argv[1:]]))


def main(arguments=None):
    """Runs a command by its arguments, by default those of the process; returns the exit code."""
    args = parse_arguments(sys.argv[1:] if arguments is None else list(arguments))
    return args.run(args)


def parse_arguments(arguments):
    from vit_tf.commands.parser import Parser

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
