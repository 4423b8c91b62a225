"""An image like a photograph, and a process that has timm."""

import functools
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from support.paths import ROOT

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@functools.cache
def photo(height, width, seed=0):
    """Makes an image with what photographs have: smooth regions, edges, noise, black and white."""
    rng = np.random.default_rng(seed)
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[:, None]
    rise, run, phase = rng.uniform(1, 9, (5, 3)), rng.uniform(1, 9, (5, 3)), rng.uniform(0, 6, (5, 3))
    waves = np.sin(rise * y[..., None, :] + run * x[..., None, :] + phase)
    image = 128 + 35 * waves.sum(-2)
    for _ in range(12):
        top, left = rng.integers(height - 2), rng.integers(width - 2)
        image[top : top + height // 3, left : left + width // 3] += rng.uniform(-120, 120, 3)
    return np.clip(np.round(image + rng.normal(0, 12, image.shape)), 0, 255).astype("uint8")


def run_python(*arguments):
    if not find_spec("timm"):
        pytest.skip("timm is not installed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(
        [sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout
