"""Loading of scripts and tools, which lie outside the package."""

import importlib.util

from support.paths import ROOT


def load_script(name, folder="scripts"):
    """Returns the module of a Python file in one of the repository's folders."""
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
