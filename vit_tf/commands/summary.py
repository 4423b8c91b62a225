"""Show the cost of models: parameters, MACs, FLOPs and activation memory.

    vit-tf summary vit_b16 --image-size 384              # one model: layers, and cost by component
    vit-tf summary runs/pets                             # the model of a run, or of any weights
    vit-tf summary vit_b16 --plot vit_b16.png            # with a diagram of its stages
    vit-tf summary 'vit_*_224' --markdown                # several models, one row each
    vit-tf summary 'vit_*' --plot models.png             # with a chart of their sizes

FLOPs are not MACs: a multiply-add is two floating-point operations.
"""

import os

from vit_tf import terminal
from vit_tf.checks import check_int, require, shown
from vit_tf.commands.options import add_model, add_sizes, check_source, sizes
from vit_tf.commands.startup import import_backend
from vit_tf.variants import ALIASES, VARIANTS, get_variant, list_models

HELP = "show layers, parameters and FLOPs of models"
COLUMNS = ("model", "image", "parameters", "GMACs", "GFLOPs", "activations, MB", "attention")


def add_arguments(parser):
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="variant, pattern such as 'vit_*_384', or weights (SOURCE)"
    )
    add_model(parser)
    add_sizes(parser)
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images per batch (1)")
    parser.add_argument(
        "--profiler", action="store_true", help="add the count of TensorFlow's profiler, for one model"
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON only")
    output.add_argument("--markdown", action="store_true", help="print a Markdown table only")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw a diagram of one model, or several by parameters and GMACs (.png, .svg, .pdf)",
    )


def run(args):
    check_int("--batch-size", args.batch_size, 1)
    options = sizes(args)
    names = expand(args.names, args.model, options)
    if args.profiler and (args.json or args.markdown or len(names) > 1):
        raise ValueError(
            "--profiler prints a line of text for one model: leave out --json, --markdown and other names"
        )
    import_backend()
    import keras

    from vit_tf import plots

    if args.plot:
        plots.check_path(args.plot)
    # Shapes are enough: without this flag the scope makes the weights of all models when it ends.
    with keras.StatelessScope(initialize_variables=False):
        models = (build(name, args.model, options) for name in names)
        figure = summarize(next(models), args) if len(names) == 1 else compare(models, args)
    keras.utils.clear_session()  # forgets the variables that wait for their values
    if figure is not None:
        plots.save(figure, args.plot)
    return 0


def expand(names, variant, options):
    """Returns names without repetition, with patterns replaced by the variants that match.

    Raises:
        ValueError: a name is neither a variant nor weights, or an option does not fit it.
    """
    expanded = {}  # a set with an order
    for name in names:
        is_pattern = set("*?[") & set(name) and not is_source(name)
        matches = list_models(name) if is_pattern else [name]
        require(matches, f"no variant matches {shown(name)}: `vit-tf list` shows all")
        expanded |= dict.fromkeys(matches)
    for name in expanded:
        if is_source(name):
            check_source(name, variant)
        else:
            get_variant(name, **options)
    return list(expanded)


def is_source(name):
    """Whether a name stands for weights rather than for a variant."""
    from vit_tf.hub import PACKAGED

    is_variant = name in VARIANTS or name in ALIASES
    return not is_variant and (name in PACKAGED or name.startswith("hf:") or os.path.exists(name))


def build(name, variant, options):
    """Returns a variant, or the model of some weights, which are not read."""
    from vit_tf.models import build_vit
    from vit_tf.weights import open_named

    if not is_source(name):
        return build_vit(name, **options)
    variant, hyperparameters = open_named(name, variant).describe(variant)
    return build_vit(variant, **{**hyperparameters, **options})


def summarize(model, args):
    """Prints the layers of a model and its cost by component; returns its diagram if --plot was given."""
    from vit_tf import plots
    from vit_tf.flops import count_flops, get_flops

    table = count_flops(model, args.batch_size)
    if args.json:
        print(terminal.json_text(table.to_dict()))
    elif args.markdown:
        print(table.to_markdown())
    else:
        model.summary()
        print_components(table)
    if args.profiler:
        flops = get_flops(model, args.batch_size)
        print(f"TensorFlow's profiler, which counts more operations: {flops:,} FLOPs")
    return plots.model_diagram(model) if args.plot else None


def print_components(table):
    """Prints a `FlopsTable` for people."""
    images = "1 image" if table.batch_size == 1 else f"{table.batch_size} images"
    totals, columns = table.totals, ("component", "parameters", "MACs", "FLOPs", "share", "activations")
    rows = [component_cells(row, table.share(row.component)) for row in table.rows]
    footer = ("total", *component_cells(totals, 1.0)[1:])
    print_grid(f"{table.model}, forward pass of {images}", columns, rows, footer)
    print(f"FLOPs are those of the matrix products, 2 x MACs: {totals.flops / 1e9:.2f} GFLOPs.")
    print(
        f"Attention: {table.attention_share:.1%} of the FLOPs are scores and values, which grow with the "
        f"tokens squared; {table.attention_layer_share:.1%} with QKV and projection."
    )


def component_cells(row, share):
    return (
        row.component,
        f"{row.parameters:,}",
        f"{row.macs:,}",
        f"{row.flops:,}",
        f"{100 * share:.1f} %",
        f"{row.activation_bytes / 1e6:,.1f} MB",
    )


def print_grid(title, columns, rows, footer=()):
    """Prints rows of text as a table, all columns but the first to the right."""
    from rich.table import Table

    grid = Table(title=title, title_justify="left", show_footer=bool(footer))
    for i, column in enumerate(columns):
        justify = "right" if i else "left"
        grid.add_column(column, footer=footer[i] if footer else "", justify=justify, no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    terminal.console(width=96 + max(len(row[0]) for row in rows)).print(grid)


def compare(models, args):
    """Prints a row per model; returns a chart of their sizes if --plot was given."""
    from vit_tf import plots
    from vit_tf.flops import count_flops

    tables, rows = [], []
    for model in models:
        tables.append(count_flops(model, args.batch_size))
        rows.append(comparison_cells(tables[-1], model.input_shape[1:3]))
    if args.json:
        print(terminal.json_text([table.to_dict() for table in tables]))
    elif args.markdown:
        print(f"| {' | '.join(COLUMNS)} |\n|---{'|---:' * (len(COLUMNS) - 1)}|")
        print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    else:
        print_grid(f"forward pass, batch size {args.batch_size}", COLUMNS, rows)
        print("attention: the share of its scores and values, which grow with the tokens squared")
    if not args.plot:
        return None
    points = [(t.model, t.totals.parameters, t.totals.macs / t.batch_size / 1e9) for t in tables]
    return plots.model_sizes(points, "Vision Transformers: size and work")


def comparison_cells(table, image_size):
    totals = table.totals
    return (
        table.model,
        "x".join(map(str, image_size)),
        f"{totals.parameters:,}",
        f"{totals.macs / 1e9:,.2f}",
        f"{totals.flops / 1e9:,.2f}",
        f"{totals.activation_bytes / 1e6:,.1f}",
        f"{table.attention_share:.1%}",
    )
