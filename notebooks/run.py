"""Runs notebooks and stores their outputs in them.

    python notebooks/run.py                              # all notebooks in this folder
    python notebooks/run.py notebooks/look_inside.ipynb

An error in a cell ends the command; the notebook keeps its previous outputs.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from vit_tf.commands import parser as cli
from vit_tf.files import atomic_path

FOLDER = Path(__file__).parent


def execute(path, overrides=""):
    """Returns a notebook with the outputs of its cells; an error in a cell is raised.

    Args:
        path: the file of the notebook.
        overrides: code that runs after the cell tagged "parameters" (papermill's convention).
    """
    notebook = nbformat.read(path, as_version=4)
    tagged = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    places = tagged[:1] if overrides else []
    for place in places:
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(overrides))
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=600, resources=resources, record_timing=False).execute()
    for place in places:
        del notebook.cells[place + 1]
    for cell in notebook.cells:
        if cell.cell_type == "code":  # TensorFlow's messages describe the machine
            cell.outputs = [x for x in cell.outputs if x.get("name") != "stderr"]
    return notebook


def main(arguments):
    for path in map(Path, arguments or sorted(FOLDER.glob("*.ipynb"))):
        notebook = execute(path)
        with atomic_path(path) as partial:
            partial.write_text(nbformat.writes(notebook) + "\n", "utf-8")
        print(path)


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))
