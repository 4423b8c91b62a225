"""Names that strangers chose on their way to a terminal."""

import ast
import io
import json
import logging
import os
import subprocess
import sys

import pytest
from rich.table import Table
from support.paths import ROOT

from vit_tf import terminal

HOSTILE = {
    "escape": "\x1b[2J\x1b]0;owned\x07",
    "carriage return": "cat\rdog",
    "line break": "cat\n  100.0%  dog",
    "backspace": "dog\b\b\bcat",
    "C1": "\x9b2J\x85x",
    "line separator": "a\u2028b\u2029c",
    "bidi override": "\u202egpj.tac\u2066",
    "tags": "cat\U000e0041",
    "no text": os.fsdecode(b"caf\xe9"),
    "markup": "[bold red]cat[/]:cat:",
}
STEERING = set(map(chr, [*range(32), *range(0x7F, 0xA0)])) - {"\n", "\t"}


def is_safe(text):
    return not STEERING & set(text) and not set("\u2028\u2029\u202e\u2066\U000e0041") & set(text)


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_names_are_one_harmless_line(name):
    assert is_safe(terminal.printable(name)) and "\n" not in terminal.printable(name)
    assert is_safe(terminal.printable_lines(name))
    terminal.printable(name).encode()


def test_text_that_harms_nobody_stays():
    for text in ("Käfer", "ねこ", "👩‍👩‍👧", "می‌خواهم", "a [b] $c$ \\d"):
        assert terminal.printable(text) == terminal.printable_lines(text) == text
    assert terminal.printable_lines("a\n\tb") == "a\n\tb"
    assert terminal.printable("a\nb\x1b") == r"a\nb\x1b"


@pytest.mark.parametrize("name", [*HOSTILE.values(), "it's", "a b", "$(rm)", "back\\slash\x01f", "-x;y"])
def test_a_shell_reads_a_quoted_name_as_it_was(name):
    quoted = terminal.shell_quoted(name)
    assert is_safe(quoted) and "\n" not in quoted
    done = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True)
    assert os.fsdecode(done.stdout) == name


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_stays_json(encoding, monkeypatch):
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", terminal.EscapingStream(stream))
    content = {"names": [*HOSTILE.values(), "\x7fKäfer ねこ"]}
    print(terminal.json_text(content))
    sys.stdout.flush()
    text = buffer.getvalue().decode(encoding)
    assert json.loads(text) == content and is_safe(text)
    assert ("Käfer" in text) == (encoding == "utf-8")


def drawn(write, is_terminal=True, monkeypatch=None):
    """Returns what comes to a terminal when `write()` prints and draws."""
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stdout", terminal.EscapingStream(stream))
    write()
    return stream.getvalue()


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_streams_and_consoles_escape_names(name, monkeypatch):
    def show():
        print("image", name)
        terminal.console(no_color=True).print(f"image {name}")
        table = Table("name", title=name, show_header=False)
        table.add_row(name)
        terminal.console(width=300, color_system=None).print(table)

    text = drawn(show, False, monkeypatch)
    assert is_safe(text)
    assert "[bold red]cat[/]:cat:" not in name or text.count(name) == 4


def test_log_lines_of_libraries_are_escaped(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    handler = logging.StreamHandler()  # as libraries make one at their import
    logger = logging.getLogger("a.library")
    logger.addHandler(handler)
    try:
        terminal.guard()
        logger.warning("a name: \x1b[2J")
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == "a name: \\x1b[2J\n"


def test_what_is_printed_while_a_bar_shows_is_escaped(monkeypatch):
    def show():
        with terminal.SafeProgress(console=terminal.console(color_system=None)) as bar:
            bar.add_task("working")
            print("image \x1b[31m\x1b]0;owned\x07")

    monkeypatch.setenv("TERM", "xterm")
    text = drawn(show, True, monkeypatch)
    assert r"image \x1b[31m\x1b]0;owned\x07" in text and "\x1b[31m" not in text
    assert "\x1b[?25l" in text  # the bar itself draws


def test_bars_of_other_libraries_pass(monkeypatch):
    bar = "\b\b\r\x1b[1m 3/10\x1b[0m \x1b[32m━━\x1b[0m"
    text = drawn(lambda: print(bar, "\r 30%|###  \x1b[2J", sep="", end=""), True, monkeypatch)
    assert text == bar + "\r 30%|###  \\x1b[2J"


def test_all_that_draws_or_reads_options_does_it_here():
    """Nothing makes a console, a bar or a parser of its own."""
    found = []
    for path in [path for part in ("vit_tf", "scripts", "tools") for path in ROOT.glob(f"{part}/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            own = {"Console", "Progress", "track"} & set(names) and node.module.startswith("rich")
            is_parser = isinstance(node, ast.Attribute) and node.attr == "ArgumentParser"
            if own or is_parser:
                found.append(str(path.relative_to(ROOT)))
    assert sorted(found) == ["vit_tf/commands/parser.py", "vit_tf/terminal.py", "vit_tf/terminal.py"]


# ---------------------------------------------------------------------------------------------------
# A dead output
# ---------------------------------------------------------------------------------------------------
class Dead(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_a_command_without_a_reader_ends_and_a_run_goes_on(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdout", terminal.EscapingStream(Dead()))
    with pytest.raises(SystemExit) as caught:
        print("a line")
    assert caught.value.code == 0
    with terminal.outliving():
        for _ in range(2):
            print("a line")
            terminal.console().print("a line")
    assert capfd.readouterr().err.count("the run continues") == 1


def test_a_full_disk_under_the_output_is_an_error_of_a_command(monkeypatch):
    def write(stream, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Dead, "write", write)
    monkeypatch.setattr(sys, "stdout", terminal.EscapingStream(Dead()))
    with pytest.raises(OSError, match="No space"):
        print("a line")
    with terminal.outliving():
        print("a line")
