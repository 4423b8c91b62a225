"""Names of a package that are imported when they are first used (PEP 562)."""

import sys
from importlib import import_module


def lazy_exports(package, homes, submodules=()):
    """Returns `__getattr__` and `__dir__` of a package, and its `__all__`.

    The package repeats the imports under `if TYPE_CHECKING:`, where type checkers and editors find them.

    Args:
        package: the package's `__name__`.
        homes: dict from the names of its modules to the public names that each defines.
        submodules: names of modules that are attributes of the package, too.
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def __getattr__(name):
        if name in modules:
            value = getattr(import_module(f"{package}.{modules[name]}"), name)
            setattr(sys.modules[package], name, value)  # the next use finds it at once
            return value
        if name in submodules:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*vars(sys.modules[package]), *modules, *submodules})

    return __getattr__, __dir__, sorted(modules)
