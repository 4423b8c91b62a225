"""Runs a command in this process."""

from vit_tf.commands.main import main


def run(capsys, *arguments):
    """Returns (exit code, stdout, stderr) of a command."""
    code = main([*map(str, arguments)])
    return code, *capsys.readouterr()


def printed(capsys, *arguments):
    """Returns what a command prints on the standard output."""
    return run(capsys, *arguments)[1]
