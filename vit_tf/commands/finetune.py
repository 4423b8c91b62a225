"""Fine-tune a Vision Transformer on labelled images.

    vit-tf finetune pets/ --weights hf:timm/vit_small_patch16_224.augreg_in21k_ft_in1k
    vit-tf finetune pets.zip --weights small.npz --model vit_small_patch16_224 --recipe lora
    vit-tf finetune --resume runs/NAME                  # after Ctrl-C, a crash or a power cut
    vit-tf finetune --resume runs/NAME --epochs 5       # trains a finished run further

DATA is a folder with one folder per class, a folder of files named like cat.12.jpg, either of them under
train/, val/ and test/, a zip of any of these, or a CSV of path and label. A CSV may have several labels per
image (cat|dog, or one column per class); the model is then trained with sigmoid cross-entropy. The run's
folder holds everything that the run writes; `vit-tf predict --weights RUN/model` uses its model.
"""

from vit_tf.commands.options import check_source
from vit_tf.commands.training_run import (
    add_data_options,
    add_run_options,
    check_command,
    data_options,
    run_command,
)
from vit_tf.training.datasets import absolute
from vit_tf.training.presets import RECIPES

HELP = "fine-tune on labelled images"
DEFAULT_MODEL = "vit_small_patch16_224"


def add_arguments(parser):
    parser.add_argument("data", metavar="DATA", nargs="?", help="labelled images, see above")
    parser.add_argument("--weights", metavar="SOURCE", help="weights to start from, see `vit-tf --help`")
    parser.add_argument(
        "--model", metavar="NAME", help=f"variant of the weights if SOURCE does not name it ({DEFAULT_MODEL})"
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME[,NAME]",
        help=f"settings to start from: {', '.join(RECIPES)}, or several with commas (full)",
    )
    add_data_options(parser)
    add_run_options(parser)


def run(args):
    return run_command(args, "finetune", None if args.resume else make_command(args))


def make_command(args):
    """Returns everything that decides what a run does, ready for JSON; a ValueError names a wrong option."""
    if args.data is None:
        raise ValueError("DATA is missing: give a folder, a zip or a CSV of images, or --resume RUN")
    command = {
        "name": "finetune",
        "data": absolute(args.data),
        "preset": args.recipe or "full",
        "engine": "train-batch",
        "variant": args.model or (None if args.weights else DEFAULT_MODEL),
        "weights": absolute(args.weights),
        "hyperparameters": {},
        "tensorboard": False,
        **data_options(args),
    }
    if command["weights"]:
        check_source(command["weights"], command["variant"])
    check_command(command)
    return command
