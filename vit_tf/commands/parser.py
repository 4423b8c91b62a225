"""Exit codes and argument parsing of all commands."""

import argparse
import os
import re
import signal
import sys
import warnings

from vit_tf import terminal
from vit_tf.checks import brief, check_int, cut, suggestion
from vit_tf.memory import describe, is_out_of_memory

MOST_LETTERS = 2000  # of an error message


def run(main):
    """Calls `main()` and ends the process with an exit code.

    The code is what `main` returns; 2 for an expected error (a ValueError, an OSError or a lack of memory,
    which is one line on stderr); and 130 after Ctrl-C, `kill` or a closed terminal. With VIT_TF_TRACEBACK=1
    in the environment, expected errors have a traceback, too.
    """
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):  # kill, a closed terminal
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, signal.default_int_handler)
    terminal.guard()
    warnings.formatwarning = lambda message, *_: f"warning: {brief(message, MOST_LETTERS)}\n"
    try:
        code = main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except Exception as error:
        out_of_memory = is_out_of_memory(error)
        is_expected = out_of_memory or isinstance(error, (ValueError, OSError))
        if not is_expected or os.environ.get("VIT_TF_TRACEBACK") == "1":
            raise
        if out_of_memory:
            error = f"out of memory{describe(error)}: use smaller or fewer images, or a smaller model"
        print(f"error: {brief(error, MOST_LETTERS)}", file=sys.stderr)
        code = 2
    finally:
        terminal.end()
    sys.exit(code)


def check_counts(args, *names):
    """Raises a ValueError unless the named options are positive ints, lists of these, or not given."""
    for name in names:
        value = getattr(args, name)
        for count in value if isinstance(value, list) else [value]:
            if count is not None:
                check_int(f"--{name.replace('_', '-')}", count, 1)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line, and which refuses empty values.

    `--out "$OUT"` with OUT unset is a mistake.
    """

    def parse_args(self, args=None, namespace=None):
        """Returns the parsed arguments.

        Raises:
            ValueError: an argument is empty or blank.
        """
        args = sys.argv[1:] if args is None else list(args)
        for i, argument in enumerate(args):
            if argument.strip() and not re.fullmatch(r"--[\w-]+=\s*", argument):
                continue
            before = args[i - 1] if i and args[i - 1].startswith("-") else ""
            option = argument.partition("=")[0] if argument.strip() else before
            where = f"the value of {option}" if option else f"argument {i + 1}"
            raise ValueError(
                f"{where} is empty, perhaps from an unset variable: give a value, or leave the option out"
            )
        return super().parse_args(args, namespace)

    def parse_known_args(self, args=None, namespace=None):
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:  # a subcommand reports its own: the parser above would print the wrong usage
            close = suggestion(unknown[0].partition("=")[0], list(self._option_string_actions))
            self.error(f"unrecognized arguments: {' '.join(unknown)}{close}")
        return namespace, unknown

    def error(self, message):
        """Ends the process with exit code 2 after a message of one line, without the long usage."""
        self.exit(2, f"error: {cut(terminal.printable(message), MOST_LETTERS)}; see `{self.prog} --help`\n")
