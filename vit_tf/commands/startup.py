"""Importing Keras and its backend for a command: quietly, and Ctrl-C ends it at once."""

import logging
import os
import re
import signal
import sys
from contextlib import contextmanager, nullcontext

from vit_tf import terminal

# What TensorFlow writes at its start on every machine. 303: there is no CUDA driver.
START_UP_LINES = re.compile(
    rb"^I\d{4} |^WARNING: All log messages before absl::InitializeLog|^To enable the following instructions:"
    rb"|failed call to cuInit: .*UNKNOWN ERROR \(303\)"
)

# What LiteRT writes at each conversion and at its start; it has no setting for these lines.
CONVERTER_LINES = re.compile(rb"^fully_quantize: \d|^INFO: Created TensorFlow Lite ")


def import_backend(trains=False, log_level=1):
    """Imports Keras and starts its backend. What they write on the standard error is passed on.

    TensorFlow's start-up lines are left out, unless the user has set TF_CPP_MIN_LOG_LEVEL. A command that
    `trains` sets seeds, for which Keras imports TensorFlow on every backend. `log_level` is TensorFlow's: 1
    leaves out informational lines, 2 warnings, too.
    """
    if "keras" in sys.modules:
        return
    is_quiet = can_drop_lines()
    if is_quiet:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = str(log_level)  # also for later lines
    with leaving_at_once(), without_lines(START_UP_LINES) if is_quiet else nullcontext():
        import keras

        if keras.backend.backend() == "tensorflow":
            keras.ops.zeros(1)  # looks for GPUs, which writes lines, too
        elif trains:
            keras.utils.set_random_seed(0)
    # grain warns on import if JAX is not installed, and TensorFlow if a run has several image or batch sizes.
    for logger, words in (("absl", "load jax profiler"), ("tensorflow", "tf.function retracing")):
        logging.getLogger(logger).addFilter(lambda record, words=words: words not in record.getMessage())


def can_drop_lines():
    """Whether the user wants fewer lines, and no threads run yet, so that the process may be forked."""
    return "keras" not in sys.modules and "TF_CPP_MIN_LOG_LEVEL" not in os.environ and hasattr(os, "fork")


def without_converter_lines():
    """A scope, around `import_backend` too, in which the lines of LiteRT's converter are dropped."""
    return without_lines(CONVERTER_LINES) if can_drop_lines() else nullcontext()


@contextmanager
def leaving_at_once():
    """A scope in which Ctrl-C ends the process: an import may turn a KeyboardInterrupt into other errors."""

    def leave(*_):
        terminal.write_stderr("interrupted\n")
        os._exit(130)

    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def without_lines(pattern):
    """A scope in which lines of the standard error that match a pattern are dropped."""

    def lines_kept(lines):
        return (line for line in lines if not pattern.search(line))

    return rewritten_stderr(lines_kept)


@contextmanager
def rewritten_stderr(rewrite):
    """A scope in which the standard error is what a function makes of the lines that are written there.

    A child process writes its lines at once, so that those before a crash are not lost. No threads may run
    yet.

    Args:
        rewrite: generator function from an iterator over lines (bytes) to lines.
    """
    original = os.dup(2)
    source, target = os.pipe()
    child = os.fork()
    if not child:
        os.close(target)
        pass_on(source, original, rewrite)
    os.close(source)
    os.dup2(target, 2)
    os.close(target)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        os.waitpid(child, 0)


@contextmanager
def stdout_dropped():
    """A scope in which the standard output of libraries is dropped, such as a line that Gloo writes."""
    sys.stdout.flush()
    original, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(original, 1)
        os.close(original)
        os.close(nowhere)


def pass_on(source, target, rewrite):
    """Copies lines between two file descriptors until the source ends, and ends this process."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to both processes
            signal.signal(number, signal.SIG_IGN)
        with open(source, "rb") as lines:
            for line in rewrite(lines):
                os.write(target, line)
    finally:
        os._exit(0)
