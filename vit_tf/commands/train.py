"""Train a Vision Transformer from scratch, on CIFAR-10 or on any labelled images.

    vit-tf train                                            # CIFAR-10, 10 minutes, on any machine
    vit-tf train --data cifar10.npz --preset long --out runs/long    # 60 minutes, or --minutes N
    vit-tf train --data cifar10.npz --preset adamw          # AdamW instead of Muon; best and last weights
    vit-tf train --data cifar10.npz --preset gpu            # 4 minutes on a GPU, by JAX
    vit-tf train --data pets/ --variant vit_tiny_patch16_224 --image-size 128 --epochs 100
    vit-tf train --resume runs/long                         # after Ctrl-C, a crash or a power cut
    vit-tf train --resume runs/long --epochs 20             # trains a finished run further

Presets can be combined: with --preset adamw,long the settings of "long" are added to those of "adamw".
The run's folder holds everything that the run writes; `vit-tf predict --weights RUN/model` uses its model.
"""

import importlib.util
import json

from vit_tf.commands.training_run import add_run_options, new_command, run_command
from vit_tf.training.loop.engines import ENGINES
from vit_tf.training.presets import PRESETS, TRAINING, get_preset

HELP = "train from scratch, on CIFAR-10 or labelled images"


def add_arguments(parser):
    parser.add_argument(
        "--data",
        help="an .npz, the original folder or archive of CIFAR-10 or CIFAR-100, 'cifar10' or 'cifar100' "
        "(download), 'sample', or labelled images as of `vit-tf finetune`; by default CIFAR-10's download, "
        "or the sample if that fails",
    )
    parser.add_argument(
        "--preset",
        metavar="NAME[,NAME]",
        help=f"model and settings to start from: {', '.join(TRAINING)} "
        "(default, or gpu with --engine compiled-epoch)",
    )
    engines = "; ".join(f"{name}: {info.description}" for name, info in ENGINES.items())
    parser.add_argument("--engine", choices=ENGINES, help=f"{engines} (the preset's)")
    parser.add_argument("--variant", metavar="NAME", help="a name of `vit-tf list` (the preset's)")
    parser.add_argument(
        "--set",
        nargs="+",
        metavar="NAME=VALUE",
        help="hyperparameters of the variant, as of build_vit, such as patch_stem=conv num_layers=6",
    )
    parser.add_argument("--tensorboard", action="store_true", default=None, help="write TensorBoard logs")
    add_run_options(parser)


def run(args):
    return run_command(args, "train", make_command)


def make_command(args):
    """Returns everything that decides what the run does, see `new_command`."""
    if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ValueError("--tensorboard needs the package tensorboard: pip install tensorboard")
    name = args.preset or ("gpu" if args.engine == "compiled-epoch" else "default")
    preset = get_preset(name)
    engine = args.engine or preset.engine
    variant = args.variant or preset.variant or PRESETS["default"].variant
    hyperparameters = {} if args.variant else preset.hyperparameters
    hyperparameters = {**hyperparameters, **parse_hyperparameters(args.set or [])}
    tensorboard = bool(args.tensorboard)
    return new_command(args, "train", name, engine, variant, hyperparameters, tensorboard=tensorboard)


CONSTANTS = {"True": True, "False": False, "None": None}  # as in Python; others are JSON


def parse_hyperparameters(words):
    """Returns the values of "name=value": Python's constants, JSON, or else text.

    Raises:
        ValueError: a word is not of that form.
    """
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals and text):
            raise ValueError(f"--set takes NAME=VALUE, such as num_layers=6, got {word!r}")
        try:
            values[name] = CONSTANTS[text] if text in CONSTANTS else json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values
