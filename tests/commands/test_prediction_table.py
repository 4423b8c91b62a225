"""The table of `vit-tf predict --csv`, which --resume continues."""

import os

import pytest
from support.exported import write_folder

from vit_tf.commands.main import main
from vit_tf.commands.prediction_table import PredictionTable
from vit_tf.deploy import Predictor


def run(capsys, *arguments):
    """Returns (exit code, stdout, stderr) of the command."""
    code = main(["predict", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("cut", [1, 3, 40, 500])
def test_resume(capsys, exported, tmp_path, cut):
    folder, paths = exported
    options = ["--weights", folder, "--top", 2, "--threads", 2, "--csv", tmp_path / "a.csv", "--resume"]
    out = tmp_path / "a.csv"
    (tmp_path / "photos" / "bad.png").write_text("words")
    code, printed, errors = run(capsys, tmp_path / "photos", *options)
    assert (code, printed) == (1, f"wrote 7 rows to {out}\n") and errors.count("error") == 1
    whole = out.read_bytes()
    out.write_bytes(whole[:-cut])  # as a killed process leaves it
    num_left = 7 - max(0, whole[:-cut].count(b"\n") - 1)
    code, printed, errors = run(capsys, tmp_path / "photos", *options)
    assert (code, printed) == (1, f"wrote {num_left} rows to {out}\n")
    assert errors.count("error") == 1 and out.read_bytes() == whole
    code, printed, errors = run(capsys, tmp_path / "photos", *options)  # only the bad one is left
    assert (code, printed) == (1, f"wrote 0 rows to {out}\n") and errors.count("error") == 1
    assert run(capsys, *paths, *options) == (0, f"every image has a row in {out}\n", "")
    assert out.read_bytes() == whole


def test_resume_with_a_name_of_several_lines(capsys, exported, tmp_path):
    folder, paths = exported
    name, out = tmp_path / "photos" / 'a\n"b",\udcff.png', tmp_path / "a.csv"
    paths[0].rename(name)
    options = ["--weights", folder, "--runtime", "onnxruntime", "--csv", out, "--resume"]
    assert run(capsys, name, *options)[0] == 0
    whole = out.read_bytes()
    table = PredictionTable(Predictor(folder, "onnxruntime"), 5)
    for size in range(len(whole)):
        out.write_bytes(whole[:size])
        assert table.open_rows(out) == set()
        assert out.read_bytes() == (whole[: whole.index(b"\n") + 1] if b"\n" in whole[:size] else b"")
    assert run(capsys, name, *options)[0] == 0 and out.read_bytes() == whole
    assert "every image has a row" in run(capsys, name, *options)[1]


def test_resume_refuses_the_table_of_another_model(capsys, exported, tmp_path):
    folder, paths = exported
    out = tmp_path / "a.csv"
    options = [*paths, "--weights", folder, "--top", 2, "--csv", out]
    run(capsys, *options)
    content = out.read_text()
    for text, message in (
        (content.replace("apple", "lion"), "row 2 has 'lion', and the model has no such label"),
        (
            content.replace("label_2", "label_9"),
            "its columns are .*; it is of another model or another --top",
        ),
        (content.replace("0.", "0,", 1), "its row 2 has 7 columns, not 6"),
        (content.replace("apple", '"ap"ple'), "it is no CSV"),
        ("words\n", "its columns are 'words'"),
        ("a\0b\n", "--resume cannot continue"),
        ('{"a": 1}', "it begins with .*, and is no table of this model"),
        ('"open\nquote\n', "it begins with .*, and is no table of this model"),
        ("notes", "it begins with 'notes', and is no table"),
    ):
        out.write_text(text)
        with pytest.raises(ValueError, match=message):
            run(capsys, *options, "--resume")
        assert out.read_text() == text
    for text in ("", "image,pred"):
        out.write_text(text)
        assert run(capsys, *options, "--resume")[0] == 0 and out.read_text() == content
    with pytest.raises(ValueError, match="already exists"):
        run(capsys, *options)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full of Linux")
def test_a_full_disk_names_the_file(tmp_path):
    table = PredictionTable(Predictor(write_folder(tmp_path / "exported"), "onnxruntime"), 1)
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        with table.output("/dev/full"):
            pass
