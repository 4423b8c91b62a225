"""Checks of sizes that are tensors in a graph of TensorFlow. XLA leaves such checks out."""

import tensorflow as tf


def assert_divisible(sizes, divisors, message):
    """Adds an assertion to the graph that sizes are multiples of divisors: an `InvalidArgumentError` if not.

    Args:
        sizes: int tensor.
        divisors: tuple of as many ints.
        message: str.
    """
    tf.debugging.assert_equal(sizes % tf.constant(divisors, sizes.dtype), 0, message=message)
