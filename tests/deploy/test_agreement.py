import numpy as np
import pytest

from vit_tf.deploy.agreement import compare, run_batches

EXPECTED = np.array([[4.0, 1.0], [0.0, 2.0]], "float32")


def test_compare():
    result = compare([EXPECTED + [[0, 0], [0.0, -0.02]]], [EXPECTED])
    assert result["largest_difference"] == pytest.approx(0.02 / 4)
    assert result["top1_agreement"] == 1
    assert compare([EXPECTED[:, ::-1]], [EXPECTED])["top1_agreement"] == 0


@pytest.mark.parametrize("outputs", [[], [EXPECTED, EXPECTED], [EXPECTED[:1]]])
def test_wrong_outputs(outputs):
    with pytest.raises(ValueError, match="outputs have the shapes"):
        compare(outputs, [EXPECTED])


def test_nan():
    with pytest.raises(ValueError, match="NaN"):
        compare([EXPECTED * np.nan], [EXPECTED])


def test_run_batches():
    sizes = []

    def run(images):
        sizes.append(len(images))
        return images[:, 0], images[:, 1]

    images = np.arange(14).reshape(7, 2)
    first, second = run_batches(run, images, 3)
    assert sizes == [3, 3, 1]
    np.testing.assert_array_equal(np.stack([first, second], axis=1), images)
