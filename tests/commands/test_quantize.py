"""`vit-tf quantize`: mistakes are found early, and the report as a table."""

import json
import re
from types import SimpleNamespace

import pytest

from vit_tf.commands import quantize as command
from vit_tf.commands.main import main
from vit_tf.deploy import extras, quantizing


def test_mistakes_are_found_before_keras(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")

    def fails(message, *options, out="out", data="sample", runtime="keras"):
        words = ["cifar10", str(tmp_path / out), "--data", data, "--runtime", runtime, *options]
        with pytest.raises(ValueError, match=message):
            main(["quantize", *words])

    monkeypatch.setattr(command, "import_backend", lambda **_: pytest.fail("too late"))
    fails("`max_drop` must be a number in", "--max-drop", "-1")
    fails("`calibration_images` must be a positive int", "--calibration-images", "0")
    fails("`held_out` must be a positive int", "--held-out", "0")
    fails("already exists", out="file")
    fails("it is empty", data=str(tmp_path / "empty"))
    fails("no such path", data=str(tmp_path / "absent"))
    fails("takes normalised images", "--preprocessing")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    fails(r"vit_tf\[openvino\]", runtime="openvino")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_command(tmp_path, capsys, monkeypatch):
    measured = {"drop": 0.25, "drop_error": 0.1, "top1_agreement": 1.0, "speed_ratio": 1.5, "bytes": 2e6}
    trial = {"name": "b", "settings": {}, **measured}
    report = {
        "runtime": "openvino",
        "name": "b",
        "metric": "accuracy",
        "before": 0.9,
        "after": 0.8975,
        "held_out": "validation",
        "held_out_images": 2000,
        "bytes_before": 6e6,
        "bytes_after": 2e6,
        "float_layers": [{"kind": "convolution", "reason": "a reason", "layers": list("vwxyz")}],
        "tried": [{"name": "a", "settings": {}, "error": "no"}, {**trial, "error": None}],
    }
    calls = []

    def fake(*args, **options):
        calls.append((args, options))
        return SimpleNamespace(quantization=json.loads(json.dumps(report)))

    monkeypatch.setattr(quantizing, "quantize", fake)
    monkeypatch.setattr("vit_tf.deploy.quantize", fake)
    out = tmp_path / "out"
    main(["quantize", "cifar10", str(out), "--data", "sample", "--runtime", "keras", "--held-out", "9"])
    assert calls[0][0] == ("cifar10", out, "sample")
    assert calls[0][1]["held_out"] == 9 and calls[0][1]["max_drop"] == 0.5
    text = capsys.readouterr().out
    assert re.search(r"^  a +failed", text, re.M)
    assert re.search(r"^\* b +0.25 ± 0.10 +100.00% +2.00 +1.50 x$", text, re.M)
    assert "accuracy 90.00% in float32, 89.75% in int8 (2,000 validation images)" in text
    assert "in float: v, w, x, ... (5 in all): a reason" in text
