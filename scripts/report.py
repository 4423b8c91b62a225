"""Reports what models cost: parameters, MACs, FLOPs and activation memory.

    python scripts/report.py vit_base_patch16_224 --batch-size 8     # one model, by component
    python scripts/report.py vit_b16 --image-size 384                # at another resolution
    python scripts/report.py vit_b16 --plot vit_b16.png              # and a diagram of its stages
    python scripts/report.py 'vit_*_224' --markdown                  # several models, compared
    python scripts/report.py 'vit_*' --plot models.png               # and a picture of their sizes

FLOPs, not MACs: a multiply-add is two floating-point operations.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow looks for GPUs aloud

import keras
from rich.table import Table

from vit_tf import build_vit, count_flops, get_flops, list_models, plots, terminal
from vit_tf.commands import main as cli
from vit_tf.commands.summary import print_components

COLUMNS = ("model", "image", "parameters", "GMACs", "GFLOPs", "activations, MB", "attention")


def parse_arguments(arguments):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="variants, aliases or patterns such as 'vit_*_384'")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument(
        "--image-size", type=int, nargs="+", metavar="PIXELS", help="side, or height and width"
    )
    parser.add_argument("--num-classes", type=int)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON alone")
    output.add_argument("--markdown", action="store_true", help="print Markdown alone")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw the diagram of one model, or several by parameters and GMACs (.png, .svg, .pdf)",
    )
    return parser.parse_args(arguments)


def check_arguments(args):
    if args.image_size is not None and len(args.image_size) > 2:
        raise ValueError(f"--image-size takes one number or two, got {len(args.image_size)}")
    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be positive, got {args.batch_size}")
    if args.plot:
        plots.check_path(args.plot)


def expand(names):
    """Returns the names with patterns replaced by the variants that match, each once."""
    found = []
    for name in names:
        matches = list_models(name) if set("*?[") & set(name) else [name]
        if not matches:
            raise ValueError(f"no variant matches {name!r}; there are {', '.join(list_models())}")
        found += [match for match in matches if match not in found]
    return found


def report_one(name, options, args):
    """Prints the summary and the table of one model; returns its diagram if one is asked for."""
    model = build_vit(name, **options)
    table = count_flops(model, args.batch_size)
    if args.json:
        print(terminal.json_text(table.to_dict()))
    elif args.markdown:
        print(table.to_markdown())
    else:
        model.summary()
        print_components(table)
        if keras.backend.backend() == "tensorflow":
            flops = get_flops(model, args.batch_size)
            print(f"TensorFlow's profiler, which counts more operations: {flops:,} FLOPs")
    return plots.model_diagram(model) if args.plot else None


def report_several(names, options, args):
    """Prints a comparison, one row a model; returns a picture of their sizes."""
    tables, rows = [], []
    for name in names:
        model = build_vit(name, **options)
        table = count_flops(model, args.batch_size)
        tables.append(table)
        totals = table.totals
        rows.append(
            (
                table.model,
                "x".join(str(side) for side in model.input_shape[1:3]),
                f"{totals.parameters:,}",
                f"{totals.macs / 1e9:,.2f}",
                f"{totals.flops / 1e9:,.2f}",
                f"{totals.activation_bytes / 1e6:,.1f}",
                f"{table.attention_share:.1%}",
            )
        )
    if args.json:
        print(terminal.json_text([table.to_dict() for table in tables]))
    elif args.markdown:
        print(f"| {' | '.join(COLUMNS)} |\n|---{'|---:' * (len(COLUMNS) - 1)}|")
        print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    else:
        grid = Table(title=f"forward pass, batch size {args.batch_size}", title_justify="left")
        for i, column in enumerate(COLUMNS):
            grid.add_column(column, justify="right" if i else "left", no_wrap=True)
        for row in rows:
            grid.add_row(*row)
        terminal.console(width=96 + max(len(row[0]) for row in rows)).print(grid)
        print("attention: the share of its scores and values, which grow with the tokens squared")
    sizes = [(t.model, t.totals.parameters, t.totals.macs / t.batch_size / 1e9) for t in tables]
    return plots.model_sizes(sizes, "Vision Transformers: size and work")


def main(arguments=None):
    args = parse_arguments(arguments)
    check_arguments(args)
    names = expand(args.names)
    options = {} if args.num_classes is None else {"num_classes": args.num_classes}
    if args.image_size:
        options["image_size"] = tuple(args.image_size) if len(args.image_size) == 2 else args.image_size[0]

    # Shapes are enough: without this flag the scope makes the weights of all models when it ends.
    with keras.StatelessScope(initialize_variables=False):
        if len(names) == 1:
            figure = report_one(names[0], options, args)
        else:
            figure = report_several(names, options, args)
    keras.utils.clear_session()  # forgets the variables that wait for their values

    if args.plot:
        plots.save(figure, args.plot)


if __name__ == "__main__":
    cli.run(main)
