"""Checks of sizes that are tensors in a graph of TensorFlow. XLA leaves such checks out."""

import tensorflow as tf


def assert_divisible(x, sizes, divisors, message):
    """Returns a tensor that the graph computes only if sizes are multiples of divisors.

    Whatever uses the result waits for the assertion: it cannot fail first, with a message of its own.

    Args:
        x: tensor.
        sizes: int tensor.
        divisors: tuple of as many ints.
        message: str, of the `InvalidArgumentError` that the graph raises.
    """
    assertion = tf.debugging.assert_equal(sizes % tf.constant(divisors, sizes.dtype), 0, message=message)
    with tf.control_dependencies([assertion]):
        return tf.identity(x)
