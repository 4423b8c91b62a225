"""The documentation: links, the reference of every public name, and the options of the commands."""

import ast
import re
import shlex

import pytest
from support.paths import ROOT

from vit_tf.commands.main import COMMANDS, parse_arguments

DOCS = ROOT / "docs"
# Pages that tools/docs_pages.py makes from files outside of docs/.
GENERATED = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
ROOT_PAGES = [ROOT / name for name in ("README.md", *GENERATED)]
REMOVED = ("scripts/train_cifar10_gpu.py",)  # pages that say how something was measured name it
PAGES = sorted(DOCS.rglob("*.md"))
NAV = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]


def test_readme_is_short():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 130 and len(text.encode()) <= 7200


@pytest.mark.parametrize("page", [*ROOT_PAGES, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    """Every relative link leads to a file; MkDocs checks those within docs/ and their anchors again."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text)
    for target in (link or image for link, image in targets):
        path = target.split("#")[0]
        if not path or re.match(r"https?://|\.\./\.\./actions/", path):
            continue
        assert (page.parent / path).exists(), target


@pytest.mark.parametrize("page", [*ROOT_PAGES, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_paths(page):
    """Every file of the repository that a page names exists."""
    folders = "benchmarks|docs|notebooks|scripts|tests|tools|vit_tf"
    for path in re.findall(rf"(?<![\w/.])((?:{folders})/[\w/.*-]*)", page.read_text("utf-8")):
        assert path in REMOVED or list(ROOT.glob(path.rstrip(".") + "*")), path


@pytest.mark.parametrize("page", [*ROOT_PAGES, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands(page):
    """Every `vit-tf` command line has options that exist."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if "vit-tf" in words and "--help" not in words:
                arguments = words[words.index("vit-tf") + 1 :]
                parse_arguments(arguments)


def test_every_command_is_in_the_reference():
    text = (DOCS / "reference" / "commands.md").read_text("utf-8")
    assert sorted(re.findall(r"^<!-- vit-tf (\w+) -->$", text, re.M)) == sorted(COMMANDS)


def test_every_page_is_in_the_navigation():
    pages = {str(page.relative_to(DOCS)) for page in PAGES} | {name.lower() for name in GENERATED}
    pages |= {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(re.findall(r"[\w/]+\.md", NAV)) == pages


def definition(package, name):
    """Returns the syntax of what a name of a package is, following imports; None for a module."""
    path = ROOT / package.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    nodes = ast.parse(path.read_text("utf-8")).body
    nodes += [inner for node in nodes if isinstance(node, ast.If) for inner in node.body]  # TYPE_CHECKING
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            imported = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
            is_module = (ROOT / node.module.replace(".", "/") / imported).exists()
            return None if is_module else definition(node.module, imported)
        names = {target.id for target in ast.walk(node) if isinstance(target, ast.Name)}
        if getattr(node, "name", None) == name or (isinstance(node, ast.Assign) and name in names):
            return node
    return None


def public_names():
    """Returns the public names of each package: those in the `__all__` of its `__init__`."""
    names = {}
    for path in sorted((ROOT / "vit_tf").rglob("__init__.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                package = ".".join(path.parent.relative_to(ROOT).parts)
                names[package] = ast.literal_eval(node.value)
    return names


def test_every_public_name_is_in_the_reference():
    """A name is in a table, or has a docstring, which mkdocstrings shows on the page of its package."""
    pages = {page: page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md")}
    names = public_names()
    assert {"vit_tf", "vit_tf.layers", "vit_tf.training"} <= set(names)
    missing = []
    for package in names:
        text = "".join(text for text in pages.values() if re.search(rf"^(:::|#) {package}$", text, re.M))
        for name in names[package]:
            node = definition(package, name)
            documented = isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
            in_table = re.search(rf"^\|[^|]*`{name}`", text, re.M)
            if not in_table and not (documented and re.search(rf"^::: {package}$", text, re.M)):
                missing.append(f"{package}.{name}")
    assert not missing


def test_every_hyperparameter_is_in_the_reference():
    node = definition("vit_tf.config", "ViTConfig")
    fields = {item.target.id: item.value for item in node.body if isinstance(item, ast.AnnAssign)}
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", (DOCS / "reference" / "config.md").read_text("utf-8"), re.M)
    assert sorted(name for name, _ in rows) == sorted(fields)
    for name, default in rows:
        if fields[name] is None:
            assert default == "variant", name
        else:
            assert ast.literal_eval(default.strip("`")) == ast.literal_eval(fields[name]), name
