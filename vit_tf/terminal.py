"""Text on its way to a terminal: names that strangers chose can neither steer it nor forge lines.

`printable` and `shell_quoted` are for names inside of a text. `guard` replaces the standard streams, so that
whatever else is printed is escaped, too. `console` and `track` draw with rich, which may use escape sequences
of its own.
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

REDRAWN = re.compile("[\b\r]+")  # how a write begins by which Keras and tqdm move their bars
COLOUR = re.compile("(\x1b\\[[0-9;]*m)")


def shell_quoted(name):
    """Returns a name as a word of a command that the user can paste into a shell.

    Control characters and bytes that are no text are written as in `$'...'` of bash and zsh.
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
    """A text stream without a reader ends the command, or nothing at all: see `outliving`."""

    is_needed = True  # of all streams

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
            is_gone = error.errno in (errno.EPIPE, errno.EIO)  # the reader, or the terminal
            if is_gone:
                silence(self.stream)
            if is_gone and LastingStream.is_needed:
                sys.exit(0)  # as `head` wants it
            if LastingStream.is_needed:
                raise
            if not self.has_failed:
                self.has_failed = True
                name = getattr(self.stream, "name", "the output")
                tell(f"note: {printable(name)} cannot be written to ({error.strerror}), the run goes on\n")


class EscapingStream:
    """A text stream that escapes what could steer a terminal.

    A progress bar of Keras or tqdm passes: a write that begins with a carriage return, with colours at most.

    Args:
        stream: a text stream.

    Attributes:
        rich_proxied_file: the stream that consoles of rich write to instead. They need escape sequences.
    """

    def __init__(self, stream):
        self.rich_proxied_file = LastingStream(stream)

    def __getattr__(self, name):
        return getattr(self.rich_proxied_file, name)

    def write(self, text):
        redrawn = REDRAWN.match(text)
        if redrawn:
            parts = COLOUR.split(text[redrawn.end() :])  # colours have the odd places
            parts = [part if i % 2 else printable_lines(part) for i, part in enumerate(parts)]
            escaped = redrawn[0] + "".join(parts)
        else:
            escaped = printable_lines(text)
        self.rich_proxied_file.write(escaped)
        return len(text)


def guard():
    """Makes the standard streams escape what they are given, for the rest of the process."""
    for descriptor in range(3):  # one that is closed would be given to the next file that is opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, EscapingStream):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # of letters that the encoding lacks
            setattr(sys, name, EscapingStream(stream))
            redirect_logging(stream, getattr(sys, name))


def redirect_logging(before, after):
    """Gives another stream to the handlers that libraries made for one when they were imported."""
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in getattr(logger, "handlers", ()):
            handler = getattr(handler, "python_handler", handler)  # that of absl
            if getattr(handler, "stream", None) is before:
                handler.setStream(after)


@contextmanager
def outliving():
    """A scope in which the output may fail and the work goes on; outside, a dead output ends the command."""
    before, LastingStream.is_needed = LastingStream.is_needed, False
    try:
        yield
    finally:
        LastingStream.is_needed = before


def end():
    """Writes what the standard streams still hold. Where that fails nothing is left to be done."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                getattr(stream, "stream", stream).flush()
        except (OSError, ValueError):  # a closed stream, too
            silence(stream)


def silence(stream):
    """Sends what is still written to a stream nowhere."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):  # no file behind it
        pass


def tell(text):
    """Writes to the standard error past all streams, if that is possible."""
    try:
        os.write(2, text.encode())
    except OSError:
        pass


# ---------------------------------------------------------------------------------------------------
# Drawing with rich
# ---------------------------------------------------------------------------------------------------
class SafeConsole(Console):
    """A console of rich that takes text as it is: no markup, no emoji codes, no escape sequences."""

    def __init__(self, **options):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text, **options):
        return super().render_str(printable_lines(text), **options)


class SafeProgress(Progress):
    """A progress bar of rich. What is printed while it shows is escaped."""

    def start(self):
        super().start()
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, FileProxy):  # the bar's, until it stops
                setattr(sys, name, EscapingStream(stream))


def console(stderr=False, **options):
    """Returns a `rich.console.Console` on the standard output, or on the standard error."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, EscapingStream):
        options = {"file": stream.rich_proxied_file, **options}
    return SafeConsole(stderr=stderr, **options)


def track(sequence, description, total=None, disable=False):
    """Yields the items of a sequence and shows a bar on the standard error meanwhile."""
    with SafeProgress(console=console(stderr=True), transient=True, disable=disable) as bar:
        yield from bar.track(sequence, total=total, description=description)
