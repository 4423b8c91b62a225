"""The optional dependencies of export, quantization, prediction and serving."""

from collections.abc import Iterable
from importlib.util import find_spec


def require_modules(modules: Iterable[str], extra: str | None, purpose: str) -> None:
    """Raises a ValueError that names the extra to install unless all modules are installed.

    Args:
        modules: names of top-level modules, which are not imported.
        extra: the extra of vit_tf that installs them; None if vit_tf itself requires them.
        purpose: text, what needs them, such as "--format onnx".
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        package = "vit_tf" if extra is None else f"vit_tf[{extra}]"
        raise ValueError(f"{purpose} needs {', '.join(missing)}: pip install '{package}'")
