import json

import numpy as np
import pytest
from support.cases import resampling_cases, resampling_input
from support.paths import FIXTURES

from vit_tf.interpolation import resize_matrix
from vit_tf.weights.positions import resample_positions
from vit_tf.weights.resample import resample_patch_kernel

RECORDED = json.loads((FIXTURES / "resampled.json").read_text())


def name_of(case):
    return " ".join(str(value) for key, value in case.items() if key != "values")


def resampled(case, seed=0):
    x, options = resampling_input(case, seed), dict(method=case["method"], antialias=case["antialias"])
    if case["kind"] == "patch":
        return resample_patch_kernel(x, case["new"], **options)
    options["align_corners"] = case["align_corners"]
    return resample_positions(x, case["old"], case["new"], case["prefix"], **options)


@pytest.mark.parametrize("case", RECORDED, ids=name_of)
def test_equals_timm(case):
    result = resampled(case)
    assert result.dtype == np.float32
    # Values of the order of 1; timm computes in float32, pseudo-inverses of patch resizes too.
    np.testing.assert_allclose(result, case["values"], rtol=1e-5, atol=1e-5)


@pytest.mark.parity
def test_equals_timm_itself():
    pytest.importorskip("timm")
    from support import references

    for case in resampling_cases():
        expected = references.reference_resampled(case, seed=1)
        np.testing.assert_allclose(resampled(case, seed=1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("old, new", [(3, 7), (7, 3), (1, 4), (5, 5), (6, 1)])
def test_a_constant_stays_constant(old, new, method, antialias):
    matrix = resize_matrix(old, new, method, antialias)
    assert matrix.shape == (new, old)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    if old == new:
        np.testing.assert_allclose(matrix, np.eye(old), atol=1e-12)


def test_the_embedding_of_an_enlarged_patch_is_that_of_the_patch():
    rng = np.random.default_rng(0)
    kernel, patch = rng.normal(size=(4, 4, 3, 5)), rng.normal(size=(4, 4, 3))
    rows, columns = resize_matrix(4, 9), resize_matrix(4, 6)
    enlarged = np.einsum("yh,xw,hwc->yxc", rows, columns, patch)
    new = resample_patch_kernel(kernel, (9, 6))
    np.testing.assert_allclose(
        np.einsum("hwcd,hwc->d", new, enlarged), np.einsum("hwcd,hwc->d", kernel, patch), atol=1e-5
    )


def test_unknown_method():
    with pytest.raises(ValueError, match="one of 'bicubic', 'bilinear', got 'area'"):
        resize_matrix(3, 4, "area")
