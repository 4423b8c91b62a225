"""tools/make_cifar10_sample.py makes the packaged sample."""

import importlib.util
import sys

import numpy as np
import pytest
from support.cifar_files import make_arrays, write_npz
from support.paths import ROOT

from vit_tf.data import SAMPLE_PATH, load_cifar


@pytest.fixture
def arrays():
    return make_arrays()


@pytest.fixture
def make_sample(monkeypatch):
    """Returns a function that runs the script with arguments and returns its exit code."""
    path = ROOT / "tools" / "make_cifar10_sample.py"
    spec = importlib.util.spec_from_file_location("make_cifar10_sample", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["make_cifar10_sample.py", *map(str, arguments)])
        return script.main()

    return run


@pytest.mark.slow
def test_script_makes_the_embedded_sample_again(tmp_path, make_sample, capsys):
    from PIL import Image

    sample = load_cifar("sample")
    arrays = (sample.x_train, sample.y_train, sample.x_test, sample.y_test)
    source = write_npz(tmp_path / "full.npz", arrays)
    out = tmp_path / "made" / "sheet.png"
    out.parent.mkdir()
    assert make_sample(source, out) == 0
    assert "wrote" in capsys.readouterr().out
    with Image.open(out) as made, Image.open(SAMPLE_PATH) as embedded:
        np.testing.assert_array_equal(np.asarray(made), np.asarray(embedded))
    assert [path.name for path in out.parent.iterdir()] == ["sheet.png"]  # no temporary file is left


def test_script_refuses_in_one_line(tmp_path, arrays, make_sample, capsys):
    small = write_npz(tmp_path / "small.npz", arrays)
    gray = write_npz(tmp_path / "gray.npz", (arrays[0][..., :1], arrays[1], arrays[2][..., :1], arrays[3]))
    out = tmp_path / "out.png"
    out.write_bytes(b"old")
    for source, target, message in (
        (tmp_path / "nothing.npz", out, "no such file or folder"),
        (small, out, "class 'airplane' of 'small' has"),
        (gray, out, r"images of 'gray' are (32, 32, 1)"),
        ("sample", out, "the sample is made from the full data set"),
    ):
        assert make_sample(source, target) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("error: ") and error.count("\n") == 1
    assert out.read_bytes() == b"old"


def test_script_refuses_where_it_cannot_write(tmp_path, make_sample, capsys):
    sample = load_cifar("sample")
    source = tmp_path / "full.npz"
    write_npz(source, (sample.x_train, sample.y_train, sample.x_test, sample.y_test))
    assert make_sample(source, tmp_path / "out.jpg") == 2
    assert "give a name that ends in .png" in capsys.readouterr().err
    assert make_sample(source, tmp_path / "nowhere" / "out.png") == 2
    assert "there is no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        make_sample()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: the following arguments are required: source; see --help\n"
