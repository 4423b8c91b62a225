"""The promise of exact resume, on training processes that are really killed."""

import csv
import json
import os
import subprocess
import sys

import pytest
from safetensors.numpy import load_file
from support.paths import ROOT, TESTS

from vit_tf.training.loop.checkpoints import Checkpoints

TIMINGS = {"seconds", "images_per_second", "train_seconds"}


def make_runs(folder, num_kills, epochs):
    """Returns the report of `support.interrupted_runs`, and what the training processes printed."""
    path = os.pathsep.join([str(ROOT), str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "support.interrupted_runs", folder, str(num_kills), str(epochs)],
        env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    logs = "".join(path.read_text() for path in folder.glob("*.log"))
    assert done.returncode == 0, done.stderr + logs
    return json.loads(done.stdout), logs


def untimed(row):
    return {key: value for key, value in row.items() if key not in TIMINGS}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.tensorflow_only("bit by bit on TensorFlow")
@pytest.mark.parametrize("num_kills, epochs", [(4, 5), pytest.param(20, 10, marks=pytest.mark.exhaustive)])
def test_a_killed_run_equals_one_that_was_not(num_kills, epochs, tmp_path):
    report, logs = make_runs(tmp_path, num_kills, epochs)
    assert report["codes"] == [0, 0], logs
    assert len(report["killed_at_steps"]) == num_kills
    assert len(set(report["killed_at_steps"])) >= num_kills / 2  # not all at one moment
    assert report["half_written"] >= num_kills // 4
    (whole, whole_state), (killed, killed_state) = (
        Checkpoints(tmp_path / name / "checkpoints").load() for name in ("whole", "killed")
    )
    assert whole.keys() == killed.keys()
    groups = {name.partition("/")[0] for name in whole}
    assert groups == {"model", "optimizer", "best"}
    for name, array in whole.items():
        assert array.tobytes() == killed[name].tobytes(), name
    rows = [list(map(untimed, state.pop("rows"))) for state in (whole_state, killed_state)]
    assert rows[0] == rows[1] and len(rows[0]) == epochs
    assert {**untimed(whole_state), "seconds": 0} == {**untimed(killed_state), "seconds": 0}
    texts = [(tmp_path / name / "history.csv").read_text() for name in ("whole", "killed")]
    files = [list(csv.DictReader(text.splitlines())) for text in texts]
    assert list(map(untimed, files[0])) == list(map(untimed, files[1]))
    models = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed")]
    assert models[0].keys() == models[1].keys()
    assert all(array.tobytes() == models[1][name].tobytes() for name, array in models[0].items())
    left = {path.name.split("-")[0] for path in (tmp_path / "killed" / "checkpoints").iterdir()}
    assert left == {"step"}  # nothing half-written stays
