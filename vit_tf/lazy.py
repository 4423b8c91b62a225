"""Imports that wait: of public names until they are used (PEP 562), of layers until Keras is imported."""

import ast
import sys
from importlib import import_module


def lazy_exports(package):
    """Returns `__getattr__` and `__dir__` of a package that imports its public names when they are used.

    The package lists its imports once, under `if TYPE_CHECKING:`. Type checkers read them there, and so does
    this function.

    Args:
        package: the package's `__name__`.

    Example:
        if TYPE_CHECKING:
            from vit_tf.flops.count import count_flops
        __getattr__, __dir__ = lazy_exports(__name__)
    """
    module = sys.modules[package]
    block = next(
        node for node in ast.parse(module.__loader__.get_source(package)).body if isinstance(node, ast.If)
    )
    homes = {alias.name: line.module for line in block.body for alias in line.names}

    def __getattr__(name):
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if homes[name] == package:
            return import_module(f"{package}.{name}")
        value = getattr(import_module(homes[name]), name)
        setattr(module, name, value)  # later uses do not call this function
        return value

    def __dir__():
        return sorted({*vars(module), *homes})

    return __getattr__, __dir__


class AfterImport:
    """A finder of `sys.meta_path` that calls a function after the import of one module.

    The other finders find the module. `wrapt.when_imported` does the same and more, such as several functions
    per module, but importing wrapt takes 60 ms, in which `vit-tf` cannot handle Ctrl-C yet: for one function
    and one module this class is as sound.

    Args:
        name: of the module, which was not imported before.
        function: callable without arguments.
    """

    def __init__(self, name, function):
        self.name = name
        self.function = function

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        finders = [x for x in sys.meta_path if x is not self and hasattr(x, "find_spec")]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                if module.__name__ == self.name:  # the loader of a zip is that of all its modules
                    self.function()

            spec.loader.exec_module = exec_module
        return spec
