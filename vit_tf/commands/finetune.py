"""Fine-tune a Vision Transformer on labelled images.

    vit-tf finetune pets/ --weights hf:timm/vit_small_patch16_224.augreg_in21k_ft_in1k
    vit-tf finetune pets.zip --weights small.npz --model vit_small_patch16_224 --recipe lora
    vit-tf finetune --resume runs/NAME                  # after Ctrl-C, a crash or a power cut
    vit-tf finetune --resume runs/NAME --epochs 5       # trains a finished run further

DATA is a folder with one folder per class, a folder of files named like cat.12.jpg, either of them under
train/, val/ and test/, a zip of any of these, a CSV of path and label, or a folder of shards that
`vit-tf shard` wrote. A CSV may have several labels per image (cat|dog, or one column per class); the model is
then trained with sigmoid cross-entropy. The run's folder holds everything that the run writes;
`vit-tf predict --weights RUN/model` uses its model.
"""

from vit_tf.commands.options import check_source
from vit_tf.commands.training_run import add_run_options, new_command, run_command
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
    add_run_options(parser)


def run(args):
    return run_command(args, "finetune", make_command)


def make_command(args):
    """Returns everything that decides what the run does, see `new_command`."""
    if args.data is None:
        raise ValueError("DATA is missing: give a folder, a zip or a CSV of images, or --resume RUN")
    weights = absolute(args.weights)
    variant = args.model or (None if weights else DEFAULT_MODEL)
    if weights:
        check_source(weights, variant)
    return new_command(args, "finetune", args.recipe or "full", "train-batch", variant, weights=weights)
