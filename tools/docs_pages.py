"""MkDocs hook: pages of the documentation site that are made from files outside of docs/.

The notebooks, CHANGELOG.md, CONTRIBUTING.md and SECURITY.md become pages. Links between files of the
repository, which work on GitHub, become links between pages.
"""

import base64
import dataclasses
import json
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from vit_tf.training.recipes import Recipe  # noqa: E402  # from this checkout; it needs neither Keras nor a backend

# From a file outside of docs/ to its page.
PAGES = {name: name.lower() for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}
NOTEBOOKS = {f"notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in ROOT.glob("notebooks/*.ipynb")}
SOURCES = {page: source for source, page in (PAGES | NOTEBOOKS).items()}
WIDE = ("models.md", "checkpoints.md", "results/cifar10.md", "results/speed.md")
COMMAND_MARK = re.compile("<!-- vit-tf (\\w+) -->")
SETTINGS_MARK = re.compile("<!-- settings -->")
LINK = re.compile(r"\]\(([\w./-]+\.(?:md|ipynb|png))(#[\w-]+)?\)")


def on_files(files, config):
    """Adds the pages to those of docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    for source, page in NOTEBOOKS.items():
        text, images = convert_notebook(json.loads((ROOT / source).read_text("utf-8")), Path(page).stem)
        files.append(File.generated(config, page, content=text))
        for name, content in images.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Points links at pages, and gives wide tables the room of the table of contents."""
    uri = page.file.src_uri
    if uri in WIDE:
        page.meta["hide"] = ["toc"]
    folder = posixpath.dirname(SOURCES.get(uri, f"docs/{uri}"))

    def resolve(match):
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        target = (PAGES | NOTEBOOKS).get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(uri) or '.')}{match[2] or ''})"

    markdown = COMMAND_MARK.sub(lambda match: fenced(command_help(match[1]), "text"), markdown)
    markdown = SETTINGS_MARK.sub(lambda match: settings_table(), markdown)
    return LINK.sub(resolve, markdown)


def command_help(name):
    """Returns what `vit-tf NAME --help` prints."""
    command = [sys.executable, "-m", "vit_tf.commands.main", name, "--help"]
    environment = {**os.environ, "COLUMNS": "92"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def settings_table():
    """Returns the settings of a training run, the fields of `Recipe`, as a table."""
    rows = ["| setting | default | what it does |", "|---|---|---|"]
    for field in dataclasses.fields(Recipe):
        rows.append(f"| `{field.name}` | `{field.default}` | {field.metadata['help']} |")
    return "\n".join(rows)


def convert_notebook(notebook, stem):
    """Returns a notebook as Markdown, and its images by file name."""
    parts, images = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else fenced(source, "python"))
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{stem}_{len(images)}.png"
                images[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![Output of the cell above]({name})")
            else:
                text = "".join(output.get("text") or data.get("text/plain", "")).rstrip()
                parts.append(f'<div class="notebook-output" markdown>\n{fenced(text, "text")}\n</div>')
    return "\n\n".join(parts) + "\n", images


def fenced(text, language):
    return f"````{language}\n{text}\n````"
