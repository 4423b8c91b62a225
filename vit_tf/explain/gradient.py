"""Gradients of a class's logit with respect to tensors inside a model, on whichever backend Keras uses."""

import keras
import numpy as np
from keras import ops

from vit_tf.block_features import predict_eagerly, to_numpy
from vit_tf.checks import shown
from vit_tf.layers.hooks import call_with_hooks

ACTIVATIONS = (keras.layers.Activation, keras.layers.Softmax)


def gradients_at(structure, images, class_index, place, layers, shapes):
    """Returns the tensors at a hook of each layer, and the gradients of the class's logit at these tensors.

    Args:
        structure: the `ViTStructure` of a model with a head.
        images: array of images, checked by `check_images`.
        class_index: int, one int per image, or None for the class with the highest logit.
        place: name of the hook.
        layers: `HookedLayer`s of the model that run this hook.
        shapes: the shape of the tensor at each hook.

    Returns:
        Two lists of float32 arrays.

    Raises:
        ValueError: see `symbolic_logits` and `class_mask`.
    """
    classifier = keras.Model(structure.model.input, symbolic_logits(structure))
    mask = class_mask(classifier, images, class_index)

    def score(*offsets):
        tensors = []
        hooks = {(layer, place): recorder(tensors, offset) for layer, offset in zip(layers, offsets)}
        logits = call_with_hooks(hooks, lambda: classifier(images, training=False))
        return ops.sum(total(logits) * ops.convert_to_tensor(mask)), tensors

    zeros = [np.zeros(shape, layer.compute_dtype) for layer, shape in zip(layers, shapes)]
    return tuple([to_numpy(x) for x in tensors] for tensors in gradient(score, zeros))


def recorder(tensors, offset):
    """Returns a hook that appends its tensor to a list, and adds an offset to the tensor."""

    def hook(x):
        tensors.append(x)
        return x + offset

    return hook


def symbolic_logits(structure):
    """Returns the symbolic outputs of a model before their activation, a list.

    Raises:
        ValueError: the model has no head, or outputs of several shapes.
    """
    name = structure.model.name
    if not structure.heads:
        raise ValueError(
            f"{name!r} has no head, and so no classes: build it with `num_classes`, or put a Dense "
            "after its features"
        )
    outputs = [before_activations(x) for x in keras.tree.flatten(structure.model.output)]
    if len({x.shape for x in outputs}) > 1:
        raise ValueError(
            f"{name!r} has outputs of several shapes, {[x.shape for x in outputs]}: give a `keras.Model` of "
            "the output with the classes"
        )
    return outputs


def before_activations(tensor):
    """Returns the symbolic tensor before the activations of a head, also before that of its Dense layer."""
    layer = tensor._keras_history.operation  # the layer that computed the tensor
    if isinstance(layer, ACTIVATIONS):
        return before_activations(layer.input)
    if isinstance(layer, keras.layers.Dense) and layer.activation is not keras.activations.linear:
        products = ops.matmul(layer.input, layer.kernel)
        return products if layer.bias is None else products + layer.bias
    return tensor


def class_mask(classifier, images, class_index):
    """Returns an array `(b, num_classes)` with a one at the class of each image, see `gradients_at`.

    Raises:
        ValueError: a class does not exist, or the number of classes is not that of the images.
    """
    num_classes = classifier.outputs[0].shape[-1]
    if class_index is None:
        classes = ops.convert_to_numpy(total(predict_eagerly(classifier, images))).argmax(axis=-1)
    else:
        classes = np.asarray(class_index)
        is_valid = classes.dtype.kind in "iu" and classes.shape in ((), (len(images),))
        if not is_valid or ((classes < 0) | (classes >= num_classes)).any():
            raise ValueError(
                f"`class_index` must be an int from 0 to {num_classes - 1}, or one for each of {len(images)} "
                f"images, got {shown(class_index)}"
            )
        classes = np.broadcast_to(classes, (len(images),))
    return np.eye(num_classes, dtype="float32")[classes]


def total(outputs):
    """Returns the sum of the logits of a model with separate heads, else its logits."""
    return sum(outputs) if isinstance(outputs, (list, tuple)) else outputs


def gradient(function, arrays):
    """Returns the tensors that a function returns, and the gradient of its scalar for each of its inputs.

    The function takes one tensor per array, and returns `(scalar, tensors)`.
    """
    inputs = [ops.convert_to_tensor(x) for x in arrays]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            scalar, tensors = function(*inputs)
        return tensors, tape.gradient(scalar, inputs, unconnected_gradients="zero")
    if backend == "jax":
        import jax

        gradients, tensors = jax.grad(lambda xs: function(*xs), has_aux=True)(inputs)
        return tensors, gradients
    import torch

    with torch.enable_grad():
        inputs = [x.detach().clone().requires_grad_() for x in inputs]
        scalar, tensors = function(*inputs)
        gradients = torch.autograd.grad(scalar, inputs, allow_unused=True, materialize_grads=True)
    return [x.detach() for x in tensors], list(gradients)
