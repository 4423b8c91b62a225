"""Markers, and fixtures of all tests.

Keras is imported by functions only: the process that hands out tests (`pytest -n`) starts its workers sooner.
"""

import contextlib
import gc
import os
import signal
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

if "parity" in sys.argv:
    os.environ["VIT_TF_PARITY"] = "1"  # pytest-xdist's workers inherit it
if os.environ.get("VIT_TF_PARITY"):  # PyTorch's compiler aborts a process that loaded TensorFlow before it
    with contextlib.suppress(ImportError):
        import timm  # noqa: F401
        import torch._dynamo  # noqa: F401

import numpy as np
import pytest

CHECKS = tempfile.TemporaryDirectory(prefix="vit_tf_checks_")  # removed when the process ends
os.environ["VIT_TF_CHECKS"] = CHECKS.name  # of this process and those that tests start

# A shell starts background jobs with Ctrl-C ignored, and processes inherit this. The tests press Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items):
    """Applies the markers `fast_cases` and `tensorflow_only`."""
    import keras

    mark_further_cases(items)
    if keras.backend.backend() == "tensorflow":
        return
    if keras.backend.backend() == "torch":
        ask_torch_for_gradients()
    for item in items:
        if marker := item.get_closest_marker("tensorflow_only"):
            reason = (
                marker.args[0] if marker.args else "TensorFlow's run of this test stands for all backends"
            )
            item.add_marker(pytest.mark.skip(reason=reason))


def ask_torch_for_gradients():
    """Only `fit` and `gradients` need them: NumPy refuses tensors that wait for a gradient."""
    import keras
    import torch

    torch.set_grad_enabled(False)
    keras.Model.fit = torch.enable_grad()(keras.Model.fit)
    keras.Model.train_on_batch = torch.enable_grad()(keras.Model.train_on_batch)


def mark_further_cases(items):
    """Marks the cases of a test after the first `fast_cases(count)` as `slow` and `tensorflow_only`."""
    cases = {}
    for item in items:
        if marker := item.get_closest_marker("fast_cases"):
            cases.setdefault((item.path, item.originalname), []).append(item)
            if len(cases[item.path, item.originalname]) > marker.args[0]:
                item.add_marker(pytest.mark.slow)
                item.add_marker(pytest.mark.tensorflow_only)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same state of Keras and of chance, and leaves the policy as it was."""
    import keras

    keras.utils.clear_session()  # before the test: only now is all that the last one held garbage
    gc.freeze()  # what is left, modules and shared models, need not be searched again and again
    policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(7)
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def eager():
    """On TensorFlow, steps run without tracing, which takes longer than the few steps of a test."""
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def randomize(model, scale=0.2):
    """Gives every variable random values: zeros and ones hide mistakes."""
    rng = np.random.default_rng(11)
    for variable in model.variables:
        if "seed_generator" not in variable.path:
            values = rng.normal(0, scale, variable.shape)
            if variable.name == "moving_variance":
                values = values**2 + 0.5
            variable.assign(values + (variable.name == "gamma"))
    return model
