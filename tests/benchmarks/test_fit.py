"""`benchmarks/fit.py`: where the batches of Keras's `fit` come from."""

import re
import sys

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "benchmarks"))
pytestmark = pytest.mark.tensorflow_only("the benchmark measures TensorFlow's fit")


@pytest.mark.slow
def test_rows(capsys):
    import fit

    fit.main(["--variant", "test_vit", "--batch-size", "2", "--rounds", "2"])
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 5
    for row in rows:
        middle, least, most = map(float, re.search(r"\| ([\d.]+) \(([\d.]+) to ([\d.]+)\) \|$", row).groups())
        assert 0 < least <= middle <= most


@pytest.mark.parametrize("option", ["--rounds", "--batch-size"])
def test_bad_arguments(option):
    import fit

    with pytest.raises(ValueError, match=f"{option} must be a positive int, got 0"):
        fit.main([option, "0"])
