"""Convert published weights to another format, image size or number of classes.

    vit-tf convert hf:timm/NAME model.keras                       # a Keras model
    vit-tf convert weights.npz vit.safetensors --model vit_b16    # with timm's names
    vit-tf convert runs/pets pets.weights.h5 --image-size 384     # weights of a Keras model

The position embedding is resampled to another image size. Another number of classes starts a new head.
"""

from pathlib import Path

from vit_tf.checks import printable
from vit_tf.commands.options import add_model, add_sizes, check_new_file, check_source, sizes
from vit_tf.commands.startup import import_backend
from vit_tf.files import atomic_path, require_space

OUTPUTS = (".safetensors", ".weights.h5", ".keras")
HELP = f"convert weights to {', '.join(OUTPUTS)}"


def add_arguments(parser):
    parser.add_argument("source", metavar="SOURCE", help="the weights, see `vit-tf --help`")
    parser.add_argument("out", metavar="OUT", type=Path, help=f"file to write: {', '.join(OUTPUTS)}")
    add_model(parser)
    add_sizes(parser)
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


def run(args):
    options, ending = sizes(args), check_output(args.out, args.force)
    check_source(args.source, args.model)
    import_backend()
    from vit_tf.flops import require_memory
    from vit_tf.models import build_vit
    from vit_tf.weights import load_weights, open_named, save_weights

    source = open_named(args.source, args.model)
    variant, described = source.describe(args.model)
    hyperparameters = {**described, **options}
    require_memory(variant, hyperparameters)
    model = build_vit(variant, **hyperparameters)
    print(load_weights(model, source))
    if ending == ".safetensors":
        save_weights(model, args.out)
    else:
        require_space(args.out.parent, 5 * model.count_params())  # 4 bytes per parameter, and more
        with atomic_path(args.out) as partial:
            (model.save_weights if ending == ".weights.h5" else model.save)(partial)
    print(f"wrote {model.name} to {printable(args.out)}")
    return 0


def check_output(out, force):
    """Returns the ending of OUT; a ValueError if no file can be written there."""
    ending = next((ending for ending in OUTPUTS if out.name.endswith(ending)), None)
    if ending is None:
        raise ValueError(f"OUT must end in {', '.join(OUTPUTS)}, got {str(out)!r}")
    check_new_file("OUT", out, force)
    return ending
