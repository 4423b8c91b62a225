import numpy as np
import pytest

from vit_tf.hub.lazy_tensor import LazyTensor


@pytest.mark.parametrize(
    "function, shape",
    [
        (lambda t: t.transpose(2, 0, 1), (4, 2, 3)),
        (lambda t: t.transpose(), (4, 3, 2)),
        (lambda t: t.reshape(6, -1), (6, 4)),
        (lambda t: t.transpose(1, 0, 2).reshape(3, 8), (3, 8)),
        (lambda t: t[1], (3, 4)),
        (lambda t: t[:, 1:], (2, 2, 4)),
        (lambda t: t[0, 1, 2], ()),
        (lambda t: t + t[0], (2, 3, 4)),
        (lambda t: t[0] + t, (2, 3, 4)),
    ],
)
def test_tensor_algebra_is_numpys_and_lazy(function, shape):
    array = np.random.default_rng(5).normal(size=(2, 3, 4)).astype("float32")
    loads = []

    def load():
        loads.append(1)
        return array

    tensor = function(LazyTensor((2, 3, 4), load))
    assert tensor.shape == shape and not loads
    result = tensor.load()
    assert isinstance(result, np.ndarray) and loads
    np.testing.assert_array_equal(result, function(array))


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_concatenate_and_map(axis):
    rng = np.random.default_rng(5)
    first = rng.normal(size=(2, 3, 4))
    second = rng.normal(size=(5, 3, 4) if axis == 0 else (2, 5, 4))
    tensors = [LazyTensor(array.shape, lambda array=array: array) for array in (first, second)]
    joined = LazyTensor.concatenate(tensors, axis)
    expected = np.concatenate([first, second], axis)
    assert joined.shape == expected.shape
    np.testing.assert_array_equal(joined.load(), expected)
    mapped = joined.map(lambda array: array.sum(-1), expected.shape[:-1])
    assert mapped.shape == expected.shape[:-1]
    np.testing.assert_array_equal(mapped.load(), expected.sum(-1))


def test_tensor_mistakes_are_found_without_reading():
    tensor = LazyTensor((2, 3), lambda: pytest.fail("was read"))
    for mistake in (
        lambda: tensor.reshape(4, -1),
        lambda: tensor.transpose(0),
        lambda: tensor + tensor[:, :2],
        lambda: LazyTensor.concatenate([tensor, tensor[:, :2]], 0),
        lambda: LazyTensor.concatenate([tensor, tensor], 2),
        lambda: LazyTensor.concatenate([], 0),
    ):
        with pytest.raises(ValueError):
            mistake()
    assert len(list(tensor)) == 2  # NumPy's IndexError ends a loop, as it does over an array
    with pytest.raises(TypeError):
        tensor + 1


def test_shapes_of_large_tensors_take_no_memory():
    tensor = LazyTensor((10**6, 10**5), lambda: pytest.fail("was read"))
    assert tensor.transpose(1, 0).reshape(-1, 10, 10**6)[5:].shape == (10**4 - 5, 10, 10**6)
    assert LazyTensor.concatenate([tensor, tensor], 1).shape == (10**6, 2 * 10**5)
