"""Forward passes with and without a gradient, on whichever backend is there."""

from contextlib import nullcontext

import keras
from keras import ops


def predict_eagerly(model, images):
    """Returns a model's inference on images; PyTorch keeps nothing for a gradient."""
    context = nullcontext()
    if keras.backend.backend() == "torch":
        import torch

        context = torch.no_grad()
    with context:
        return model(images, training=False)


def gradient(function, arrays):
    """Returns `(extra, gradients)` of a function from tensors to `(scalar, extra)`.

    Args:
        function: takes as many tensors as there are arrays.
        arrays: list of arrays or tensors.

    Returns:
        What the function gave beside the scalar, and a tensor for each of `arrays`.
    """
    tensors = [ops.convert_to_tensor(x) for x in arrays]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            scalar, extra = function(*tensors)
        return extra, tape.gradient(scalar, tensors, unconnected_gradients="zero")
    if backend == "jax":
        import jax

        gradients, extra = jax.grad(lambda xs: function(*xs), has_aux=True)(tensors)
        return extra, gradients
    import torch

    with torch.enable_grad():
        tensors = [x.detach().clone().requires_grad_() for x in tensors]
        scalar, extra = function(*tensors)
        gradients = torch.autograd.grad(scalar, tensors, allow_unused=True, materialize_grads=True)
    return [x.detach() for x in extra], list(gradients)
