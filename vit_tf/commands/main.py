"""Vision Transformers for Keras: list them, look at them, use their published weights.

    vit-tf list '*dinov2*'                                  # the variants that match
    vit-tf summary vit_base_patch16_224                     # layers, parameters, FLOPs by component
    vit-tf predict cat.jpg                                  # the likeliest of CIFAR-10's ten classes
    vit-tf predict cat.jpg --weights hf:timm/NAME           # of that model's classes
    vit-tf predict photos 'more/*.png' --weights runs/pets  # of all images in a folder, and of a pattern
    vit-tf convert hf:timm/NAME model.keras                 # or .weights.h5, .safetensors

`predict` answers for every image that can be read and names the others on stderr. Its exit code is then 1,
and 2 if there is no answer at all. It marks with a star the labels of a multi-label model that reach their
thresholds, and always prints these; a regression gives its values.

SOURCE is a file (.safetensors, .npz, .pth, .bin), a run's folder, a folder with config.json and
model.safetensors, hf:owner/name on the Hugging Face hub, or cifar10, the small model that comes with the
package.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import keras
import numpy as np
from rich.table import Table

from vit_tf import terminal
from vit_tf.checks import brief, shown
from vit_tf.classifier import load
from vit_tf.commands.parser import Parser, run
from vit_tf.config import ViTConfig
from vit_tf.files import atomic_path, require_space
from vit_tf.flops import count_flops, require_memory
from vit_tf.models import build_vit
from vit_tf.variants import ALIASES, VARIANTS, family, get_variant, list_models
from vit_tf.weights import load_weights, open_named, save_weights

OUTPUTS = (".safetensors", ".weights.h5", ".keras")
SIZES = ("image_size", "patch_size", "hidden_dim", "num_layers", "num_heads", "mlp_dim", "num_classes")
COLUMNS = ("model", "family", "parameters", "GMACs", "image", "patch", "classes", "switches")


def entry():
    run(main)


def main(arguments=None):
    args = parse_arguments(arguments)
    return args.command(args)


def parse_arguments(arguments):
    parser = Parser("vit-tf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="the variants, with what sets each apart")
    command.add_argument("pattern", nargs="?", default="*", help="such as 'vit_*_384'")
    command.add_argument("--markdown", action="store_true", help="a table with parameters and GMACs")
    command.set_defaults(command=list_command)

    command = commands.add_parser("summary", help="a variant's layers, parameters and FLOPs")
    command.add_argument("name")
    add_sizes(command)
    command.set_defaults(command=summary_command)

    command = commands.add_parser("predict", help="the likeliest classes of images")
    command.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, folders, or patterns like '*.jpg'"
    )
    command.add_argument(
        "--weights", metavar="SOURCE", help="default: cifar10, the small model that comes with the package"
    )
    add_model(command)
    command.add_argument("--top", type=int, default=5, metavar="N", help="how many classes (5)")
    command.add_argument("--json", action="store_true", help="print JSON alone")
    command.set_defaults(command=predict_command)

    command = commands.add_parser("convert", help=f"weights to {', '.join(OUTPUTS)} (timm's names)")
    command.add_argument("source", metavar="SOURCE")
    command.add_argument("out", metavar="OUT", type=Path)
    add_model(command)
    add_sizes(command)
    command.add_argument("--force", action="store_true", help="replace OUT")
    command.set_defaults(command=convert_command)
    return parser.parse_args(arguments)


def add_model(command):
    command.add_argument("--model", metavar="NAME", help="the variant, where SOURCE has no config.json")


def add_sizes(command):
    command.add_argument("--image-size", metavar="PIXELS", help="side, or HEIGHTxWIDTH, such as 224x288")
    command.add_argument("--num-classes", type=int, help="another number starts a new head")


def sizes(args):
    """Returns the options of `add_sizes` as arguments of `build_vit`."""
    options = {} if args.num_classes is None else {"num_classes": args.num_classes}
    if args.image_size is not None:
        options["image_size"] = parse_image_size(args.image_size)
    return options


def parse_image_size(text):
    """Returns (height, width) of "224" or "224x288"."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--image-size takes 224 or 224x288 (height x width), got {shown(text)}")
    return tuple(int(part) for part in (parts * 2)[:2])


# ---------------------------------------------------------------------------------------------------
# vit-tf list
# ---------------------------------------------------------------------------------------------------
def list_command(args):
    order = list(VARIANTS)  # family by family
    names = sorted((ALIASES.get(name, name) for name in list_models(args.pattern)), key=order.index)
    if not names:
        raise ValueError(f"no variant matches {args.pattern!r}: `vit-tf list` shows all")
    if args.markdown:
        rows = terminal.track(names, "counting")
        print(markdown_table([model_row(name) for name in rows]))
        keras.utils.clear_session()  # forgets the variables that wait for their values
        return
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {family(name)}: {switches(get_variant(name)) or 'plain'}")
    print(f"{len(names)} variants")


def model_row(name):
    """Returns one row of the model table: the values of `COLUMNS` as text."""
    spec = get_variant(name)
    # Shapes are enough: without this flag the scope makes the weights of all models when it ends.
    with keras.StatelessScope(initialize_variables=False):
        totals = count_flops(build_vit(name)).totals
    return (
        name,
        family(name),
        f"{totals.parameters:,}",
        f"{totals.macs / 1e9:,.2f}",
        sides(spec.image_size),
        sides(spec.patch_size),
        str(spec.num_classes),
        switches(spec),
    )


def markdown_table(rows):
    """Returns the rows of `model_row` as a Markdown table."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|---:|---:|---:|---:|---:|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def sides(size):
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def switches(spec):
    """Returns what sets a variant apart from a plain ViT, its sizes aside, as text."""
    return ", ".join(
        f"{field.name}={getattr(spec, field.name)}"
        for field in fields(ViTConfig)
        if field.name not in SIZES and getattr(spec, field.name) != field.default
    )


# ---------------------------------------------------------------------------------------------------
# vit-tf summary
# ---------------------------------------------------------------------------------------------------
def summary_command(args):
    with keras.StatelessScope(initialize_variables=False):
        model = build_vit(args.name, **sizes(args))
        model.summary()
        print_components(count_flops(model))
    keras.utils.clear_session()


def print_components(table):
    """Prints a `FlopsTable` for people."""
    images = "1 image" if table.batch_size == 1 else f"{table.batch_size} images"
    title = f"{table.model}, forward pass of {images}"
    grid = Table("component", title=title, title_justify="left", show_footer=True)
    totals = table.totals
    grid.columns[0].footer = "total"
    for name, total in (
        ("parameters", f"{totals.parameters:,}"),
        ("MACs", f"{totals.macs:,}"),
        ("FLOPs", f"{totals.flops:,}"),
        ("share", "100.0 %"),
        ("activations", f"{totals.activation_bytes / 1e6:,.1f} MB"),
    ):
        grid.add_column(name, footer=total, justify="right", no_wrap=True)
    for row in table.rows:
        grid.add_row(
            row.component,
            f"{row.parameters:,}",
            f"{row.macs:,}",
            f"{row.flops:,}",
            f"{table.share(row.component):.1%}".replace("%", " %"),
            f"{row.activation_bytes / 1e6:,.1f} MB",
        )
    terminal.console(width=110).print(grid)
    print(f"FLOPs are those of the matrix products, 2 x MACs: {totals.flops / 1e9:.2f} GFLOPs.")
    print(
        f"Attention: {table.attention_share:.1%} of the FLOPs are scores and values, which grow with the "
        f"tokens squared; {table.attention_layer_share:.1%} with QKV and projection."
    )


# ---------------------------------------------------------------------------------------------------
# vit-tf predict
# ---------------------------------------------------------------------------------------------------
def predict_command(args, batch_size=8):
    """Returns the exit code: 0, 1 if some images have no answer, 2 if none has one."""
    from vit_tf.data.image_paths import find_image_paths

    if args.top < 1:
        raise ValueError(f"--top must be at least 1, got {args.top}")
    paths, problems, notes = find_image_paths(args.images)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for problem in problems:
        print_error(problem)
    if not paths:
        return 2
    if args.weights is None:
        print("no --weights: this is the package's small model, for CIFAR-10's ten classes", file=sys.stderr)
    classifier = load(args.weights or "cifar10", args.model)
    answered, results = [], []
    bar = terminal.track(paths, "predicting", disable=not args.json or len(paths) <= batch_size)
    for names, images in readable_batches(bar, classifier.preprocessing, batch_size):
        batch_results = classifier.decode(classifier.model.predict_on_batch(images), args.top)
        if not args.json:
            print_predictions(names, batch_results, as_json=False)
            sys.stdout.flush()
        answered += names
        results += batch_results
    if args.json:
        print_predictions(answered, results, as_json=True)
    if not answered:
        return 2
    return 1 if problems or len(answered) < len(paths) else 0


def readable_batches(paths, preprocessing, batch_size):
    """Yields ([paths], images (b, h, w, c)) of the files that can be read, and names the others on stderr."""
    names, images = [], []
    for path in paths:
        try:
            images.append(preprocessing(path))
            names.append(path)
        except (ValueError, OSError) as error:
            print_error(error)
        if len(names) == batch_size:
            yield names, np.concatenate(images)
            names, images = [], []
    if names:
        yield names, np.concatenate(images)


def print_error(error):
    print(f"error: {brief(error)}", file=sys.stderr)


def print_predictions(images, results, as_json):
    if as_json:
        content = [
            {
                "image": str(image),
                "predictions": [prediction.as_dict() for prediction in predictions],
            }
            for image, predictions in zip(images, results)
        ]
        print(terminal.json_text(content))
        return
    for image, predictions in zip(images, results):
        print(terminal.printable(image))
        for prediction in predictions:
            print(prediction_line(prediction))


def prediction_line(prediction):
    """Returns a `Prediction` or `Value` as text; labels that reach their threshold have a star."""
    star = "*" if prediction.selected else " "
    return f"{star} {prediction.text:>6}  {terminal.printable(prediction.label)}"


# ---------------------------------------------------------------------------------------------------
# vit-tf convert
# ---------------------------------------------------------------------------------------------------
def convert_command(args):
    ending = next((ending for ending in OUTPUTS if args.out.name.endswith(ending)), None)
    if ending is None:
        raise ValueError(f"OUT must end in {', '.join(OUTPUTS)}, got {str(args.out)!r}")
    if not args.out.parent.is_dir():
        raise ValueError(f"no folder {str(args.out.parent)!r} to write {args.out.name!r} into: make it first")
    if args.out.is_dir():
        raise ValueError(f"{str(args.out)!r} is a folder: give the name of a file")
    if args.out.exists() and not args.force:
        raise ValueError(f"{str(args.out)!r} is there already: choose another name, or add --force")
    source = open_named(args.source, args.model)
    variant, described = source.describe(args.model)
    hyperparameters = {**described, **sizes(args)}
    require_memory(variant, hyperparameters)
    model = build_vit(variant, **hyperparameters)
    print(load_weights(model, source))
    if ending == ".safetensors":
        save_weights(model, args.out)
    else:
        require_space(args.out.parent, 5 * model.count_params())  # 4 bytes a parameter, and more
        with atomic_path(args.out) as partial:
            (model.save_weights if ending == ".weights.h5" else model.save)(partial)
    print(f"{model.name} is in {terminal.printable(args.out)}")


if __name__ == "__main__":  # python -m vit_tf.commands.main
    entry()
