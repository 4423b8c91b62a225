import json
import os
import subprocess
import sys
from math import prod

import pytest
from support.paths import ROOT

from vit_tf import build_vit
from vit_tf.flops import training_bytes
from vit_tf.planning import measure_workload, step_memory
from vit_tf.planning.device_memory import KEPT
from vit_tf.training import make_optimizer

TINY = dict(image_size=32, num_layers=2, num_classes=10)


def test_adamw_takes_16_bytes_per_parameter(vit_b16):
    memory = step_memory(vit_b16, 1)
    assert memory.fixed == 16 * vit_b16.parameters
    assert step_memory(vit_b16, 1, ema=True).fixed == 20 * vit_b16.parameters
    assert step_memory(vit_b16, 1, optimizer="sgd").fixed == 12 * vit_b16.parameters
    assert step_memory(vit_b16, 1, "bfloat16").weights == 6 * vit_b16.parameters  # and a copy of each


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_moments_are_those_of_the_optimizers(name):
    model = build_vit("vit_tiny_patch16_224", **TINY)
    optimizer = make_optimizer(model, name, ema=0.99)
    optimizer.build(model.trainable_variables)
    size = sum(prod(variable.shape) for variable in optimizer.variables)
    memory = step_memory(measure_workload("vit_tiny_patch16_224", **TINY), 1, optimizer=name, ema=True)
    assert memory.moments + memory.averages == pytest.approx(4 * size, rel=0.01)


def test_activations_are_those_of_training_bytes(monkeypatch):
    """Both count the same tensors; a plan adds the images, and what XLA keeps beside them."""
    monkeypatch.setitem(KEPT, "float32", (1, 1, 1))
    workload = measure_workload("vit_tiny_patch16_224", **TINY)
    images = 8 * 4 * workload.pixels
    expected = training_bytes(build_vit("vit_tiny_patch16_224", **TINY), 8)
    assert step_memory(workload, 8).total - images == expected


def test_each_option_saves_what_it_is_for(vit_b16):
    plain = step_memory(vit_b16, 64, "bfloat16")
    fused = step_memory(vit_b16, 64, "bfloat16", fused_attention=True)
    scores = KEPT["bfloat16"][0] * 2 * 64 * vit_b16.scores
    assert plain.activations - fused.activations == pytest.approx(scores)
    remat = step_memory(vit_b16, 64, "bfloat16", remat=True)
    assert remat.activations < 0.2 * plain.activations and remat.fixed == plain.fixed
    split = step_memory(vit_b16, 64, "bfloat16", degree=4)
    assert plain.activations / 4 < split.activations < plain.activations
    assert plain.fixed / 4 < split.fixed < 0.27 * plain.fixed


def test_most_images_fill_the_memory(vit_b16):
    most = step_memory(vit_b16, 1).most_images(40e9)
    assert step_memory(vit_b16, most).total <= 40e9 < step_memory(vit_b16, most + 1).total
    assert step_memory(vit_b16, 1).most_images(1e9) == 0


@pytest.mark.slow
@pytest.mark.tensorflow_only("the script runs JAX in a process of its own")
def test_memory_is_near_what_jax_measures():
    """A compiled step, and what differentiation keeps in bfloat16 and with rematerialised blocks."""
    command = [sys.executable, str(ROOT / "benchmarks" / "plan_memory.py"), "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert len(rows) == 3
    for model, what, predicted, measured in rows:
        assert predicted == pytest.approx(measured, rel=0.25), (model, what)
