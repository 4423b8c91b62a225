"""The settings of a `Recipe` as options of a command."""

import argparse
from dataclasses import fields

from vit_tf.training.recipes import Recipe


def add_settings(parser):
    """Adds an option for each field of `Recipe`. The parsed arguments lack an option that is not given."""
    group = parser.add_argument_group("settings, which replace those of the recipe or preset")
    for item in fields(Recipe):
        kind, limits = str(item.type), item.metadata["limits"]
        if "bool" in kind:
            options = {"action": argparse.BooleanOptionalAction}
        elif item.type is str:
            options = {"metavar": "|".join(limits) if limits else "TEXT"}
        elif "int" in kind:
            options = {"metavar": "N", "type": number_or_none(int)}
        else:
            options = {"metavar": "X", "type": number_or_none(float)}
        option, explanation = f"--{item.name.replace('_', '-')}", item.metadata["help"].replace("%", "%%")
        group.add_argument(option, default=argparse.SUPPRESS, help=explanation, **options)


def number_or_none(kind):
    """Returns the function that reads an int or a float, or "none", from text."""

    def parse(text):
        return None if text == "none" else kind(text)

    parse.__name__ = kind.__name__  # argparse puts the name into its message
    return parse


def given_settings(args):
    """Returns the settings that were given on the command line, as a dict."""
    return {item.name: getattr(args, item.name) for item in fields(Recipe) if item.name in args}
