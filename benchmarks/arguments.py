"""Checks of the options of benchmarks."""

from vit_tf.checks import check_int


def check_counts(args, *names):
    """Raises a ValueError unless options are positive ints, lists of these, or not given."""
    for name in names:
        value = getattr(args, name)
        for count in value if isinstance(value, list) else [value]:
            if count is not None:
                check_int(f"--{name.replace('_', '-')}", count, 1)
