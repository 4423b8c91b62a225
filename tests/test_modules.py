"""The names of the modules, see docs/design.md."""

from collections import Counter

from support.paths import ROOT

FILES = sorted((ROOT / "vit_tf").rglob("*.py"))
MODULES = [path for path in FILES if path.name != "__init__.py"]
PACKAGES = {path.parent.name for path in FILES if path.name == "__init__.py"}


def test_no_two_modules_share_a_stem():
    counts = Counter(path.stem for path in MODULES)
    assert [stem for stem, count in counts.items() if count > 1] == []


def test_no_module_is_called_like_a_package():
    """But for a command: it has the name that users type."""
    assert [path for path in MODULES if path.stem in PACKAGES and path.parent.name != "commands"] == []
