import math

import numpy as np
import pytest

from vit_tf.training.schedules import make_schedule, warmup_cosine

PROGRESS = np.linspace(0, 1, 41)


def ramp(warmup):
    return np.minimum(PROGRESS / warmup, 1) if warmup else np.ones_like(PROGRESS)


@pytest.mark.parametrize("warmup", [0, 0.1, 0.25])
def test_cosine(warmup):
    cosine = 0.5 * (1 + np.cos(np.pi * (PROGRESS - warmup) / (1 - warmup)))
    expected = np.where(PROGRESS < warmup, ramp(warmup), cosine)
    schedule = make_schedule("cosine", warmup=warmup)
    np.testing.assert_allclose([schedule(p, 7) for p in PROGRESS], expected, atol=1e-12)
    np.testing.assert_allclose([warmup_cosine(p, warmup) for p in PROGRESS], expected, atol=1e-12)


def test_warmup_cosine_by_default():
    values = [warmup_cosine(p) for p in (0, 0.05, 0.1, 0.55, 1)]
    np.testing.assert_allclose(values, [0, 0.5, 1, 0.5, 0], atol=1e-12)
    assert make_schedule("cosine")(0.3, 0) == warmup_cosine(0.3)


@pytest.mark.parametrize("warmup", [0, 0.25])
def test_constant(warmup):
    schedule = make_schedule("constant", warmup=warmup)
    np.testing.assert_allclose([schedule(p, 3.5) for p in PROGRESS], ramp(warmup), atol=1e-12)


@pytest.mark.parametrize("warmup", [0, 0.25])
def test_step(warmup):
    schedule = make_schedule("step", warmup=warmup, decay=0.8)
    epochs = PROGRESS * 12  # a run of twelve epochs
    expected = ramp(warmup) * 0.8 ** np.floor(epochs)
    np.testing.assert_allclose([schedule(p, e) for p, e in zip(PROGRESS, epochs)], expected, atol=1e-12)
    assert schedule(1.0, 3) == schedule(1.0, 3.999) == pytest.approx(0.8**3)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(name="cosin"), r"`name` must be one of .* got 'cosin' \(did you mean 'cosine'\?\)"),
        (dict(name=None), "`name` must be one of"),
        (dict(name="cosine", warmup=1.0), r"`warmup` must be a number in \[0, 1\), got 1.0"),
        (dict(name="constant", warmup=-0.1), "`warmup` must be"),
        (dict(name="cosine", warmup=math.nan), "`warmup` must be"),
        (dict(name="cosine", warmup="0.1"), "`warmup` must be"),
        (dict(name="step"), r"`decay` must be a number in \(0, 1\], got None"),
        (dict(name="step", decay=0), "`decay` must be a number"),
        (dict(name="step", decay=1.5), "`decay` must be a number"),
        (dict(name="cosine", decay=0.9), "`decay` goes with the schedule 'step' alone"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(**options)
