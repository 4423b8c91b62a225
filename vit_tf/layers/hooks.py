"""Hooks: functions that read, and may replace, a tensor inside a layer while one function runs.

A hook belongs to the context (`contextvars`) that sets it, never to the layer: other threads that call the
same layer at the same time do not run it, and there is nothing to remove after an error or a Ctrl-C.
"""

from contextvars import ContextVar, copy_context

import keras

from vit_tf.layers.composite import CompositeLayer

HOOKS = ContextVar("HOOKS", default=None)  # (trace, {(layer, place): hook}) or None


def call_with_hooks(hooks, function, *args):
    """Returns `function(*args)`, during which layers run the hooks.

    Functions that are compiled during the call (by `tf.function`, `jax.jit`, Keras's `predict`) are traced
    without the hooks, since they outlive the call.

    Args:
        hooks: dict from `(layer, place)` to a function of the tensor at that place, which returns another in
            its stead, or None to keep it. Docstrings of layers name the places.
        function: any callable.
    """
    context = copy_context()  # dropped afterwards, and the hooks with it
    context.run(HOOKS.set, (current_trace(), {**active_hooks(), **hooks}))
    return context.run(function, *args)


def active_hooks():
    """Returns the hooks of this context, a dict; none in a function that is being traced for later use."""
    if is_compiled_by_torch():  # whose tracer does not know context variables
        return {}
    found = HOOKS.get()
    if found is None:
        return {}
    trace, hooks = found
    return hooks if trace == current_trace() else {}


def current_trace():
    """Returns what tells the traces of functions apart, and from no trace at all."""
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
    """A layer that runs hooks on some of its inner tensors; its docstring names these places."""

    def has_hook(self, place):
        return (self, place) in active_hooks()

    def hooked(self, place, x):
        """Returns the tensor that a hook puts in the place of `x`; `x` where there is none."""
        hook = active_hooks().get((self, place))
        y = None if hook is None else hook(x)
        return x if y is None else y

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """Keras's hook for `keras.RematScope`, which no gradient of what a hook adds would leave."""
        if active_hooks():
            return layer_call
        return super().rematerialized_call(layer_call, *args, **kwargs)
