from pathlib import Path

import keras
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def shorten(notebook):
    """One epoch of training: a cell tagged "parameters" may be overridden, by papermill's convention."""
    places = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    for place in places:
        assert "EPOCHS = " in notebook.cells[place].source
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("EPOCHS = 1"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the kernel takes the default backend")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    assert len(notebook.cells) > 5
    shorten(notebook)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
