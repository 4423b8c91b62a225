"""The documentation: links, the reference of every public name, and the options of the commands."""

import ast
import re

import pytest
from support.paths import ROOT

DOCS = ROOT / "docs"
# Pages that tools/docs_pages.py makes from files outside of docs/.
GENERATED = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
ROOT_PAGES = [ROOT / name for name in ("README.md", *GENERATED)]
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


def test_every_page_is_in_the_navigation():
    pages = {str(page.relative_to(DOCS)) for page in PAGES} | {name.lower() for name in GENERATED}
    pages |= {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(re.findall(r"[\w/]+\.md", NAV)) == pages


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
    """A package's page documents all of its names; those of `vit_tf` are listed with links."""
    directives = {}
    for page in (DOCS / "reference").glob("*.md"):
        for package, options in re.findall(r"^::: (\S+)\n((?:    .*\n)*)", page.read_text("utf-8"), re.M):
            directives[package] = options
    names = public_names()
    assert {"vit_tf", "vit_tf.layers", "vit_tf.training"} <= set(names)
    top = (DOCS / "reference" / "vit_tf.md").read_text("utf-8")
    missing = [name for name in names.pop("vit_tf") if f"[`{name}`]" not in top]
    missing += [package for package in names if "members" in directives.get(package, "members: none")]
    assert not missing
