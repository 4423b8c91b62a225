"""Hooks: functions that read, and may replace, an intermediate tensor of a layer during one function call.

A hook belongs to the context (`contextvars`) that sets it, not to the layer. Other threads that call the same
layer at the same time do not run it, and nothing has to be removed after an error or a Ctrl-C.
"""

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any

import keras

from vit_tf.config import Tensor
from vit_tf.layers.composite import CompositeLayer

HOOKS = ContextVar("HOOKS", default=None)  # (trace, {(layer, place): hook}) or None


def call_with_hooks(hooks, function, *args):
    """Returns `function(*args)`, with hooks active during the call.

    Functions that are compiled during the call (by `tf.function`, `jax.jit`, Keras's `predict`) are traced
    without the hooks, since compiled functions outlive the call.

    Args:
        hooks: dict from `(layer, place)` to a function of the tensor at that place. The function returns a
            replacement, or None to keep the tensor. Docstrings of layers name the places.
        function: any callable.
    """
    context = copy_context()  # is dropped with its hooks after the call
    context.run(HOOKS.set, (current_trace(), {**active_hooks(), **hooks}))
    return context.run(function, *args)


def active_hooks():
    """Returns the hooks of this context, a dict; empty inside a function that is traced for later use."""
    if is_compiled_by_torch():  # PyTorch's tracer does not support context variables
        return {}
    active = HOOKS.get()
    if active is None:
        return {}
    trace, hooks = active
    return hooks if trace == current_trace() else {}


def current_trace():
    """Returns an object that identifies the function trace in progress; on TensorFlow None outside of one."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    if backend == "jax":
        from jax.extend.core import get_opaque_trace_state

        return get_opaque_trace_state()
    return None


def is_compiled_by_torch():
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.compiler.is_compiling()


class HookedLayer(CompositeLayer):
    """A layer that runs hooks on some intermediate tensors; its docstring names these places."""

    def has_hook(self, place: str) -> bool:
        return (self, place) in active_hooks()

    def hooked(self, place: str, x: Tensor) -> Tensor:
        """Returns the replacement for `x` by the hook at a place; `x` without a hook."""
        hook = active_hooks().get((self, place))
        y = None if hook is None else hook(x)
        return x if y is None else y

    def rematerialized_call(self, layer_call: Callable, *args: Any, **kwargs: Any) -> Callable:
        """Keras calls this method in a `keras.RematScope`."""
        if active_hooks():  # gradients of a tensor that a hook adds do not leave a rematerialised call
            return layer_call
        return super().rematerialized_call(layer_call, *args, **kwargs)
