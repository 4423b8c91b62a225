import sys

import pytest

from vit_tf.commands import main as cli
from vit_tf.commands.parser import MOST_LETTERS, Parser, run


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["list", "BLANK"], "argument 2 is empty"),
        (["summary", "vit_b16", "--image-size", "BLANK"], "the value of --image-size is empty"),
        (["predict", "a.jpg", "BLANK"], "argument 3 is empty"),
        (["predict", "a.jpg", "--weights", "BLANK"], "the value of --weights is empty"),
        (["predict", "a.jpg", "--weights=BLANK"], "the value of --weights is empty"),
        (["convert", "a", "b", "--model", "BLANK"], "the value of --model is empty"),
    ],
)
def test_an_empty_value_is_not_a_missing_one(arguments, message, blank):
    with pytest.raises(ValueError, match=message):
        cli.main([argument.replace("BLANK", blank) for argument in arguments])


def test_all_options_of_a_parser(monkeypatch):
    parser = Parser()
    parser.add_argument("--out")
    parser.add_argument("-s", "--set", nargs="+")
    assert parser.parse_args(["--out", "a b", "-s", "x=", "y= "]).set == ["x=", "y= "]
    for words in (["--out", ""], ["--out="], ["-s", "a", ""], ["-s", ""]):
        monkeypatch.setattr(sys, "argv", ["program", *words])
        with pytest.raises(ValueError, match="is empty, perhaps from an unset variable"):
            parser.parse_args()


def failing(message):
    raise ValueError(message)


def test_an_error_is_one_short_harmless_line(capsys):
    for message, expected in (
        ("two\n  lines", "error: two lines\n"),
        ("a \x1b[2J b\r", "error: a \\x1b[2J b\n"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(lambda message=message: failing(message))
        assert caught.value.code == 2 and capsys.readouterr().err == expected
    with pytest.raises(SystemExit):
        run(lambda: failing("begin " + 100_000 * "tensor" + " end"))
    error = capsys.readouterr().err
    assert error.startswith("error: begin tensor") and error.endswith("tensor end\n")
    assert len(error) < MOST_LETTERS + 100


def test_argparse_cannot_be_made_to_forge_a_line(capsys):
    with pytest.raises(SystemExit):
        Parser().parse_args(["a\nerror: forged\x1b[2J"])
    error = capsys.readouterr().err
    assert r"a\nerror: forged\x1b[2J" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["predict", "a.jpg", "--treshold", "1"], "--treshold 1 (did you mean '--threshold'?)"),
        (["finetune", "pets", "--epochs", "abc"], "argument --epochs: invalid int value: 'abc'"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_the_command(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.count("\n") == 1
    assert message in error and f"see `vit-tf {arguments[0]} --help`" in error
