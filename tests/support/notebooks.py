"""Notebooks that run in this process: a kernel of its own per notebook spends most of its time on imports."""

import contextlib
import sys

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config


class ZMQInteractiveShell(InteractiveShell):
    """A shell whose name tells rich that a notebook shows what is printed."""


@contextlib.contextmanager
def open_shell():
    """The shell that runs the cells of one notebook. What it replaces in this process comes back."""
    hooks = sys.displayhook, sys.excepthook
    config = Config()
    config.HistoryManager.enabled = False  # no file in the user's folder
    shell = ZMQInteractiveShell.instance(config=config)
    try:
        yield shell
    finally:
        shell.reset(new_session=False)
        ZMQInteractiveShell.clear_instance()
        sys.displayhook, sys.excepthook = hooks


def run_cell(shell, source):
    """Runs a code cell, and raises its error; returns the kinds of its outputs, as MIME types or "text"."""
    values = []
    shell.display_trap.hook = values.append
    with capture_output() as captured:
        outcome = shell.run_cell(source)
    outcome.raise_error()
    shown = [shell.display_formatter.format(value)[0] for value in values if value is not None]
    shown += [output.data for output in captured.outputs]
    return {kind for data in shown for kind in data} | ({"text"} if captured.stdout else set())
