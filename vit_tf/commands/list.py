"""List the variants: name, family, and the hyperparameters that differ from a plain ViT.

    vit-tf list                          # all variants, by family
    vit-tf list '*_384'                  # those whose names match a pattern
    vit-tf list '*dinov2*' --markdown    # a table with parameters and multiply-adds

Names are those of timm. Any hyperparameter of a variant can be changed, see `vit_tf.build_vit`.
"""

from dataclasses import fields

from vit_tf import terminal
from vit_tf.checks import shown
from vit_tf.commands.startup import import_backend
from vit_tf.config import ViTConfig
from vit_tf.variants import ALIASES, VARIANTS, family, get_variant, list_models

HELP = "list the variants"
SIZES = ("image_size", "patch_size", "hidden_dim", "num_layers", "num_heads", "mlp_dim", "num_classes")
COLUMNS = ("model", "family", "parameters", "GMACs", "image", "patch", "classes", "switches")


def add_arguments(parser):
    parser.add_argument("pattern", nargs="?", default="*", help="such as 'vit_*_384'; default: all variants")
    parser.add_argument(
        "--markdown", action="store_true", help="print a Markdown table with parameters and GMACs (slow)"
    )


def run(args):
    order = list(VARIANTS)  # family by family
    names = sorted((ALIASES.get(name, name) for name in list_models(args.pattern)), key=order.index)
    if not names:
        raise ValueError(f"no variant matches {shown(args.pattern)}: `vit-tf list` shows all")
    if args.markdown:
        print(markdown_table(model_rows(names)))
        return 0
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {family(name)}: {switches(get_variant(name)) or 'plain'}")
    print(f"{len(names)} variant{'s' * (len(names) > 1)}")
    return 0


def model_rows(names):
    """Returns the rows of `model_row` of several variants."""
    import_backend()
    import keras

    # Shapes are enough: without this flag the scope makes the weights of all models when it ends.
    with keras.StatelessScope(initialize_variables=False):
        rows = [model_row(name) for name in terminal.track(names, "counting")]
    keras.utils.clear_session()  # forgets the variables that wait for their values
    return rows


def model_row(name):
    """Returns the values of `COLUMNS` of a variant as text."""
    config = get_variant(name)
    parameters, macs = count(name, config.num_layers)
    return (
        name,
        family(name),
        f"{parameters:,}",
        f"{macs / 1e9:,.2f}",
        sides(config.image_size),
        sides(config.patch_size),
        str(config.num_classes),
        switches(config),
    )


def count(name, num_layers):
    """Returns (parameters, MACs) of a variant.

    All blocks cost the same, so one is built; with grouped queries also one such block.
    """
    from vit_tf.flops import count_flops
    from vit_tf.flops.count import count_layer, own_shapes
    from vit_tf.models import build_vit

    def costs(num_full_blocks):
        model = build_vit(name, num_layers=1, num_full_blocks=num_full_blocks)
        block, totals = model.get_layer("block_0"), count_flops(model).totals
        rows = list(count_layer(block, (1, *own_shapes(block)[0])))
        one = sum(row.parameters for row in rows), sum(row.macs for row in rows)
        return one, (totals.parameters - one[0], totals.macs - one[1])

    config = get_variant(name)
    num_grouped = max(0, num_layers - 2 * config.num_full_blocks) if config.num_kv_heads else 0
    block, rest = costs(num_full_blocks=1)
    grouped = costs(num_full_blocks=0)[0] if num_grouped else block
    parts = zip(rest, block, grouped)
    return tuple(x + (num_layers - num_grouped) * full + num_grouped * few for x, full, few in parts)


def markdown_table(rows):
    """Returns the rows of `model_row` as a Markdown table."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|---:|---:|---:|---:|---:|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def sides(size):
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def switches(config):
    """Returns the hyperparameters, sizes aside, that differ from those of a plain ViT, as text."""
    return ", ".join(
        f"{field.name}={getattr(config, field.name)}"
        for field in fields(ViTConfig)
        if field.name not in SIZES and getattr(config, field.name) != field.default
    )
