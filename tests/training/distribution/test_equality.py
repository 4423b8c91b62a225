"""Several devices and processes give the weights of one device, on JAX, by real collectives."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support.paths import ROOT

pytest.importorskip("jax")
pytestmark = [pytest.mark.slow, pytest.mark.tensorflow_only("JAX runs in processes of its own here")]

LIMIT = 1e-5
MORE = [f"{case}:{kind}" for case in ("dropout", "sizes") for kind in ("data", "model")]
MORE += ["muon:model", "sgd:model", "adamw:model4"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONWARNINGS": "ignore"}
RUNS = ("-m", "support.distributed_runs")


def run_python(*arguments, **environment):
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=900, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def start_processes(count, *arguments):
    launcher = (ROOT / "scripts" / "launch_local.py", "--processes", count, "--", sys.executable)
    run_python(*launcher, *arguments)


def load(path):
    with np.load(path) as arrays:
        return dict(arrays)


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name].astype("float64")).max()) for name in first)


@pytest.mark.parametrize(
    "pairs",
    [
        ["adamw:model"],
        pytest.param(["adamw:data", "sgd:data", "muon:data", *MORE], marks=pytest.mark.exhaustive),
    ],
)
def test_four_devices(pairs):
    differences = json.loads(run_python(*RUNS, "devices", *pairs))
    assert differences.keys() == set(pairs)
    assert max(differences.values()) < LIMIT, differences


@pytest.mark.parametrize(
    "count, kind, cases",
    [
        (2, "data", ["adamw"]),
        pytest.param(2, "data", ["sgd", "muon", "sizes"], marks=pytest.mark.exhaustive),
        pytest.param(4, "data", ["adamw", "sgd", "muon"], marks=pytest.mark.exhaustive),
        pytest.param(2, "model", ["adamw", "sgd", "muon"], marks=pytest.mark.exhaustive),
        pytest.param(4, "model", ["adamw"], marks=pytest.mark.exhaustive),
    ],
)
def test_processes(tmp_path, count, kind, cases):
    one, several = tmp_path / "one", tmp_path / "several"
    one.mkdir(), several.mkdir()
    run_python(*RUNS, "process", one, "one", *cases)
    start_processes(count, *RUNS, "process", several, kind, *cases)
    for case in cases:
        difference = largest_difference(load(one / f"{case}.npz"), load(several / f"{case}.npz"))
        assert difference < LIMIT, case
        divided = json.loads((several / f"{case}.json").read_text())
        assert bool(divided) == (kind == "model")
