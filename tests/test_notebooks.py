from pathlib import Path

import nbformat
import pytest
from support.paths import ROOT
from support.scripts import load_script

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
def load_fewer(source, load=data.load_cifar10):
    return fewer(load(source))
data.load_cifar10 = load_fewer
images = fewer(images) if "images" in globals() else None
"""


def shown(notebook):
    """Returns what each code cell shows: its kinds of output."""
    return [
        {kind for output in cell.outputs for kind in output.get("data", {"text": 0})}
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
@pytest.mark.tensorflow_only("the kernel takes the default backend")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # Jupyter's own
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    stored = nbformat.read(path, as_version=4)
    assert len(stored.cells) > 5 and any("image/png" in kinds for kinds in shown(stored))
    assert not any(str(Path.home()) in str(cell.get("outputs")) for cell in stored.cells)
    notebook = run.execute(path, overrides=LESS)
    assert shown(notebook) == shown(stored)  # what it shows is what is kept in it
