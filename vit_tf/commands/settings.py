"""The settings of a `Recipe` as options of a command."""

import argparse
from dataclasses import fields, replace

from vit_tf.training.recipes import Recipe

METAVARS = {"int": "N", "float": "X", "str": "TEXT"}


def add_settings(parser):
    """Adds an option for each field of `Recipe`; one that is not given is None."""
    group = parser.add_argument_group("settings, which take the place of the recipe's own")
    for item in fields(Recipe):
        option, explanation = f"--{item.name.replace('_', '-')}", item.metadata["help"].replace("%", "%%")
        if item.type is bool:
            group.add_argument(option, action=argparse.BooleanOptionalAction, help=explanation)
        else:
            metavar = "|".join(item.metadata["choices"] or ()) or METAVARS[parser_of(item).__name__]
            group.add_argument(option, type=parser_of(item), metavar=metavar, help=explanation)


def parser_of(item):
    """Returns the function that reads a setting's value from text."""
    kind = str if item.type is str else int if "int" in str(item.type) else float

    def parse(text):
        return "none" if text == "none" and kind is not str else kind(text)

    parse.__name__ = kind.__name__  # argparse puts it into its message
    return parse


def given_settings(args):
    """Returns the settings that were given on the command line, as a dict."""
    given = {item.name: getattr(args, item.name) for item in fields(Recipe)}
    return {
        name: None if value == "none" and Recipe.__dataclass_fields__[name].type is not str else value
        for name, value in given.items()
        if value is not None
    }


def override(recipe, settings):
    """Returns a recipe with settings replaced; `minutes` or `epochs` alone is the only limit then.

    Raises:
        ValueError: a value does not fit; it names the option.
    """
    if "minutes" in settings or "epochs" in settings:
        settings = {"minutes": None, "epochs": None, **settings}
    try:
        return replace(recipe, **settings)
    except ValueError as error:
        message = str(error)
        for name in sorted(settings, key=len, reverse=True):
            message = message.replace(f"`{name}`", f"--{name.replace('_', '-')}")
        raise ValueError(message) from None
