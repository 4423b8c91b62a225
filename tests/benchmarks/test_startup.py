"""`benchmarks/startup.py`: how long cold processes take."""

import re
import sys

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "benchmarks"))
pytestmark = pytest.mark.tensorflow_only("the processes use TensorFlow")


@pytest.mark.slow
def test_rows(capsys):
    import startup

    startup.main(["--variants", "test_vit", "--rounds", "1"])
    _, _, *rows = capsys.readouterr().out.splitlines()
    seconds = [float(re.match(r"\| .* \| ([\d.]+) \(", row).group(1)) for row in rows]
    keras, *_, built = seconds
    assert len(seconds) == 5 and min(seconds) > 0
    assert built < keras  # of a tiny model, in seconds of `build_vit` alone
    assert rows[0].endswith("| 1.00 x |") and rows[-1].startswith("| building test_vit |")


def test_medians_and_ratios():
    import startup

    table = startup.markdown({startup.KERAS: [2.0, 1.0, 9.0], "other": [3.0]})
    assert (
        "| `import keras` | 2.00 (1.00 to 9.00) | 1.00 x |\n| other | 3.00 (3.00 to 3.00) | 1.50 x |" in table
    )


def test_a_process_that_fails_says_why():
    import startup

    with pytest.raises(ValueError, match="failed: ValueError: no disk"):
        startup.seconds_of(["-c", "raise ValueError('no disk')"])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [(["--rounds", "0"], "--rounds must be a positive int, got 0"), (["--variants", "vit_b61"], "vit_b61")],
)
def test_bad_arguments(arguments, match):
    import startup

    with pytest.raises(ValueError, match=match):
        startup.main(arguments)
