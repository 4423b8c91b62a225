"""`benchmarks/gpu.py` from end to end on a CPU, so that the first GPU that it meets gives numbers."""

import json
import os
import re
import subprocess
import sys

import pytest
from support.paths import ROOT

pytest.importorskip("jax")
pytestmark = [pytest.mark.slow, pytest.mark.tensorflow_only("JAX runs in processes of its own here")]


def run(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # faster here
    environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


def test_rehearsal_on_a_cpu(tmp_path):
    done = run("--cpu", "--data", "sample", "--out", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results["vit"]["gemm"] > 1e8 and 0 < results["vit"]["steps"]["2"] < 100
    assert results["cifar"]["epochs"] == 1 and 0 <= results["cifar"]["accuracy"] <= 1
    table = (tmp_path / "gpu.md").read_text()
    assert "vit_tf through JAX | 2 |" in table and "CIFAR-10 from scratch (sample)" in table
    if "timm" not in results:
        assert re.search("timm is left out: (torch|timm) cannot be used: .*Error", done.stdout)


def test_without_a_gpu(tmp_path):
    done = run("--out", tmp_path)
    assert done.returncode == 2 and "error: no GPU is found (jax: " in done.stderr
    assert "add --cpu to try the script" in done.stderr
    assert not any(tmp_path.iterdir())


def test_results_of_another_machine(tmp_path):
    (tmp_path / "gpu.json").write_text('{"machine": "an H200"}')
    done = run("--cpu", "--out", tmp_path)
    assert done.returncode == 2 and "has results of an H200, and this is CPU" in done.stderr
