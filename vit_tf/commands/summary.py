"""Show a variant's layers, and its parameters, FLOPs and activation memory by component.

vit-tf summary vit_b16 --image-size 384
"""

from vit_tf import terminal
from vit_tf.commands.options import add_sizes, sizes
from vit_tf.commands.startup import import_backend
from vit_tf.variants import get_variant

HELP = "show layers, parameters and FLOPs"


def add_arguments(parser):
    parser.add_argument("name", help="a variant, see `vit-tf list`")
    add_sizes(parser)


def run(args):
    get_variant(args.name, **sizes(args))
    import_backend()
    import keras

    from vit_tf.flops import count_flops
    from vit_tf.models import build_vit

    with keras.StatelessScope(initialize_variables=False):
        model = build_vit(args.name, **sizes(args))
        model.summary()
        print_components(count_flops(model))
    keras.utils.clear_session()
    return 0


def print_components(table):
    """Prints a `FlopsTable` for people."""
    from rich.table import Table

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
