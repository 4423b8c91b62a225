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


def output_of(command, environment=None):
    """Returns what a command prints; raises a ValueError with the last line of its errors if it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        *_, reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ValueError(f"`{' '.join(map(str, command))}` failed: {reason}")
    return done.stdout
