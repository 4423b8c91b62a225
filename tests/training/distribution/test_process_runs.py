"""Runs of several processes that are stopped, killed and continued give the result of an undisturbed one."""

import json
import os
import subprocess
import sys

import pytest
from support.paths import ROOT

pytest.importorskip("jax")
pytestmark = [pytest.mark.slow, pytest.mark.tensorflow_only("JAX runs in processes of its own here")]

# XLA's optimisations round in another way for each shape. After 54 steps of AdamW that alone makes weights
# differ by 9e-5: as much as between two levels of optimisation on one process.
PLAIN_CODE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONWARNINGS": "ignore"}
    environment["XLA_FLAGS"] = PLAIN_CODE
    command = [sys.executable, "-m", "support.process_runs", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "count, options",
    [(10, []), (3, ["--distribute", "model", "--model-devices", "2"])],
    ids=["data", "model"],
)
def test_killed_processes(tmp_path, count, options):
    result = run("kill", tmp_path, count, *options)
    assert result["difference"] == 0, result
    assert result["rows_equal"]
    assert result["named"] == count


@pytest.mark.exhaustive
def test_another_number_of_processes(tmp_path):
    result = run("resize", tmp_path)
    assert result["codes"] == [130, 130, 130]
    assert result["rows_equal"]
    assert result["difference"] < 1e-5, result
