"""Terminal output that is safe: names from files can neither control the terminal nor forge lines.

`printable` and `shell_quoted` escape names inside a text. `guard` replaces the standard streams by streams
that escape everything else that is printed. `console` and `track` draw with rich, whose own escape sequences
pass.
"""

import errno
import json
import logging
import os
import re
import shlex
import sys
from contextlib import contextmanager

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import Progress

from vit_tf.checks import IN_LINES, IN_NAMES, printable, printable_lines

REDRAWN = re.compile("[\b\r]+")  # the beginning of a write by which Keras and tqdm redraw their bars
COLOUR = re.compile("(\x1b\\[[0-9;]*m)")


def shell_quoted(name):
    """Returns a name quoted as one word of a shell command.

    Control characters and bytes that are not text are written in the form `$'...'` of bash and zsh.
    """
    name = os.fspath(name)
    if not IN_NAMES.search(name):
        return shlex.quote(name)
    text = IN_NAMES.sub(shell_escape, re.sub(r"[\\']", r"\\\g<0>", name))
    return f"$'{text}'"


def shell_escape(match):
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(match[0]))


def json_text(content, indent=2):
    """Returns `content` as JSON that is safe to print. Letters stay as they are.

    Args:
        content: what `json.dumps` takes.
        indent: int, or None for a single line.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    text = json.dumps(content, indent=indent, ensure_ascii=not encoding.lower().startswith("utf"))
    return IN_LINES.sub(json_escape, text)


def json_escape(match):
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


# ---------------------------------------------------------------------------------------------------
# The standard streams
# ---------------------------------------------------------------------------------------------------
class LastingStream:
    """A text stream that ends the command when its reader is gone, except inside `outliving`."""

    is_needed = True  # for all streams

    def __init__(self, stream):
        self.stream = stream
        self.has_failed = False

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        self.attempt(self.stream.write, text)
        return len(text)

    def flush(self):
        self.attempt(self.stream.flush)

    def attempt(self, function, *args):
        try:
            function(*args)
        except OSError as error:
            is_gone = error.errno in (errno.EPIPE, errno.EIO)  # no reader, no terminal
            if is_gone:
                silence(self.stream)
            if is_gone and LastingStream.is_needed:
                sys.exit(0)  # such as `| head`
            if LastingStream.is_needed:
                raise
            if not self.has_failed:
                self.has_failed = True
                name = getattr(self.stream, "name", "the output")
                write_stderr(
                    f"note: {printable(name)} cannot be written to ({error.strerror}), the run continues\n"
                )


class EscapingStream:
    """A text stream that escapes control characters.

    Progress bars of Keras and tqdm pass: in a write that begins with a carriage return, colours are kept.

    Args:
        stream: a text stream.

    Attributes:
        rich_proxied_file: the stream for consoles of rich, which need escape sequences.
    """

    def __init__(self, stream):
        self.rich_proxied_file = LastingStream(stream)

    def __getattr__(self, name):
        return getattr(self.rich_proxied_file, name)

    def write(self, text):
        redrawn = REDRAWN.match(text)
        if redrawn:
            parts = COLOUR.split(text[redrawn.end() :])  # the odd parts are colours
            parts = [part if i % 2 else printable_lines(part) for i, part in enumerate(parts)]
            escaped = redrawn[0] + "".join(parts)
        else:
            escaped = printable_lines(text)
        self.rich_proxied_file.write(escaped)
        return len(text)


def guard():
    """Makes the standard streams escape control characters, for the rest of the process."""
    for descriptor in range(3):  # the next file that is opened would get the number of a closed one
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, EscapingStream):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # for characters outside the encoding
            setattr(sys, name, EscapingStream(stream))
            redirect_logging(stream, getattr(sys, name))


def redirect_logging(before, after):
    """Replaces the stream of logging handlers that libraries made when they were imported."""
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in getattr(logger, "handlers", ()):
            handler = getattr(handler, "python_handler", handler)  # absl wraps its handler
            if getattr(handler, "stream", None) is before:
                handler.setStream(after)


@contextmanager
def outliving():
    """A scope in which a failing output does not end the command."""
    before, LastingStream.is_needed = LastingStream.is_needed, False
    try:
        yield
    finally:
        LastingStream.is_needed = before


def end():
    """Flushes the standard streams, and ignores errors."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                getattr(stream, "stream", stream).flush()
        except (OSError, ValueError):  # a closed stream, too
            silence(stream)


def silence(stream):
    """Redirects a stream to the null device."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):  # it has no file descriptor
        pass


def write_stderr(text):
    """Writes directly to the standard error, and ignores errors."""
    try:
        os.write(2, text.encode())
    except OSError:
        pass


# ---------------------------------------------------------------------------------------------------
# Drawing with rich
# ---------------------------------------------------------------------------------------------------
class SafeConsole(Console):
    """A rich console that prints text literally: no markup, no emoji codes, no escape sequences."""

    def __init__(self, **options):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text, **options):
        return super().render_str(printable_lines(text), **options)


class SafeProgress(Progress):
    """A rich progress bar; text that is printed meanwhile is escaped."""

    def start(self):
        super().start()
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, FileProxy):  # set by rich until the bar stops
                setattr(sys, name, EscapingStream(stream))


def console(stderr=False, **options):
    """Returns a `rich.console.Console` on the standard output, or on the standard error."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, EscapingStream):
        options = {"file": stream.rich_proxied_file, **options}
    return SafeConsole(stderr=stderr, **options)


def track(sequence, description, total=None, disable=False):
    """Yields the items of a sequence and shows a progress bar on the standard error, if it is a terminal."""
    errors = console(stderr=True)
    with SafeProgress(console=errors, transient=True, disable=disable or not errors.is_terminal) as bar:
        yield from bar.track(sequence, total=total, description=description)
