from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from support.notebooks import open_shell, run_cell
from support.paths import ROOT
from support.scripts import load_script

from vit_tf import data

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

run = load_script("run", "notebooks")


# One epoch over a tenth of the sample, whose classes take turns.
LESS = """
EPOCHS = 1
from dataclasses import replace
def fewer(sample):
    counts = {"x_train": 160, "y_train": 160, "x_test": 80, "y_test": 80}
    return replace(sample, **{name: getattr(sample, name)[:count] for name, count in counts.items()})
def load_fewer(source, load=data.load_cifar):
    return fewer(load(source))
data.load_cifar = load_fewer
images = fewer(images) if "images" in globals() else None
"""


def kinds(outputs):
    """Returns the kinds of the outputs that are stored in a code cell, as MIME types or "text"."""
    return {kind for output in outputs for kind in output.get("data", {"text": 0})}


@pytest.mark.slow
@pytest.mark.tensorflow_only("the stored outputs are those of the default backend")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # IPython's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, eager, monkeypatch):
    """Each cell shows what is stored in it."""
    stored = nbformat.read(path, as_version=4)
    assert len(stored.cells) > 5 and any(
        "image/png" in kinds(cell.get("outputs", ())) for cell in stored.cells
    )
    assert not any(str(Path.home()) in str(cell.get("outputs")) for cell in stored.cells)
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr(data, "load_cifar", data.load_cifar)  # comes back: `LESS` replaces it
    with open_shell() as shell:
        for cell in stored.cells:
            if cell.cell_type == "code":
                assert run_cell(shell, cell.source) == kinds(cell.outputs), cell.source
                if "parameters" in cell.metadata.get("tags", ()):
                    run_cell(shell, LESS)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_in_a_kernel(path):
    run.execute(path, overrides=LESS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_outputs_are_stored(tmp_path):
    """`make notebooks`: overrides follow the parameters and are not stored, nor are messages of libraries."""
    cells = ["n = 2", "import sys; print(n, file=sys.stderr); print(n)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    path = tmp_path / "small.ipynb"
    nbformat.write(notebook, path)
    for overrides, printed in (("", "2\n"), ("n = 3", "3\n")):
        done = run.execute(path, overrides)
        assert [cell.source for cell in done.cells] == cells
        assert [output.text for output in done.cells[1].outputs] == [printed]
    notebook.cells[0].source = "1 / 0"
    nbformat.write(notebook, path)
    before = path.read_text()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run.main([path])
    assert path.read_text() == before
