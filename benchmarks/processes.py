"""Processes that a benchmark starts."""

import subprocess


def exit_code(command, environment=None):
    """Runs a command and returns its exit code. Ctrl-C or SIGTERM is passed on, and the command may save."""
    # In a session of its own: else Ctrl-C would reach it twice.
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
