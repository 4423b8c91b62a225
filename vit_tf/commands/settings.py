"""The settings of a `Recipe` as options of a command."""

import argparse
from dataclasses import fields

from vit_tf.training.recipes import Recipe

METAVARS = {"int": "N", "float": "X", "str": "TEXT"}


def add_settings(parser):
    """Adds an option for each field of `Recipe`. An option that is not given is None."""
    group = parser.add_argument_group("settings, which replace those of the recipe or preset")
    for item in fields(Recipe):
        option, explanation = f"--{item.name.replace('_', '-')}", item.metadata["help"].replace("%", "%%")
        if "bool" in str(item.type):
            group.add_argument(option, action=argparse.BooleanOptionalAction, help=explanation)
            continue
        limits = item.metadata["limits"]
        is_choice = item.type is str and limits
        metavar = "|".join(limits) if is_choice else METAVARS[parser_of(item).__name__]
        group.add_argument(option, type=parser_of(item), metavar=metavar, help=explanation)


def parser_of(item):
    """Returns the function that reads a setting's value from text."""
    kind = str if item.type is str else int if "int" in str(item.type) else float

    def parse(text):
        return "none" if text == "none" and kind is not str else kind(text)

    parse.__name__ = kind.__name__  # argparse puts the name into its message
    return parse


def given_settings(args):
    """Returns the settings that were given on the command line, as a dict."""
    values = {item.name: getattr(args, item.name) for item in fields(Recipe)}
    return {
        name: None if value == "none" and Recipe.__dataclass_fields__[name].type is not str else value
        for name, value in values.items()
        if value is not None
    }
