"""`benchmarks/training_memory.py`: where the memory of a training step goes."""

import sys

import numpy as np
import pytest
from support.paths import ROOT

from vit_tf.variants import get_variant

sys.path.append(str(ROOT / "benchmarks"))
pytestmark = pytest.mark.tensorflow_only("the benchmark measures TensorFlow")


def test_activations():
    """A block keeps inputs and outputs of two norms, queries, keys, values, attention, and inside the MLP."""
    import training_memory

    config = get_variant("vit_b16", num_layers=2, hidden_dim=8, num_heads=2, mlp_dim=24, image_size=32)
    parts = training_memory.activation_bytes(config, batch_size=3, itemsize=2)
    tokens = 3 * (2 * 2 + 1)
    assert sum(parts.values()) == 2 * 2 * tokens * (4 * 8 + 3 * 8 + 8 + 24)


def test_table():
    import argparse

    import training_memory

    args = argparse.Namespace(variant="vit_b16", batch_size=8, precision="float32")
    table = training_memory.markdown(args, {"weights": 2e9, "moments": 0.5e9}, peak=2.75e9)
    assert table.splitlines() == [
        "| vit_b16, batch 8, float32 | GB |",
        "|---|---:|",
        "| weights | 2.00 |",
        "| moments | 0.50 |",
        "| sum | 2.50 |",
        "| measured peak of the process | 2.75 |",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_peak():
    import training_memory

    before = training_memory.memory("VmHWM")
    array = np.ones(max(before - training_memory.memory("VmRSS"), 0) + 30_000_000, np.uint8)
    assert training_memory.memory("VmHWM") - before > 25_000_000 and array[-1] == 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--batch-size", "0"], "--batch-size must be a positive int, got 0"),
        (
            ["--variant", "vit_cifar10_hybrid"],
            "expected a variant of plain patches .* got 'vit_cifar10_hybrid'",
        ),
        (
            ["--variant", "vit_cifar10_tutorial"],
            "without dropout, such as vit_b16, got 'vit_cifar10_tutorial'",
        ),
    ],
)
def test_bad_arguments(arguments, match):
    import training_memory

    with pytest.raises(ValueError, match=match):
        training_memory.main(arguments)
