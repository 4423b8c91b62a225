import sys
from subprocess import run

import numpy as np
import pytest

from vit_tf.checks import (
    brief,
    check_choice,
    check_int,
    check_number,
    check_range,
    is_int,
    is_number,
    listing,
    pair,
    printable,
    printable_lines,
    quoted,
    require,
    shown,
    suggestion,
)
from vit_tf.variants import ALIASES, VARIANTS


def test_checks_config_and_variants_need_neither_keras_nor_numpy():
    code = "import sys, vit_tf.config, vit_tf.variants; print({'keras', 'numpy'} & {*sys.modules})"
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), 1 << 40])
def test_ints(value):
    assert is_int(value) and is_number(value)


@pytest.mark.parametrize("value", [True, np.True_, 3.0, "3", None, np.ones(1, int)])
def test_what_is_no_int(value):
    assert not is_int(value)


@pytest.mark.parametrize("value", [True, "3", None, 1j, float("nan"), float("inf"), -float("inf"), 10**400])
def test_what_is_no_number(value):
    assert not is_number(value)


@pytest.mark.parametrize(
    "interval, valid, invalid, words",
    [
        ("(0, 1)", (0.5, np.float32(0.1)), (0, 1, "0.5", None, True), "a number in (0, 1)"),
        ("[0, 1]", (0, 1, 0.5), (-0.1, 1.1, float("nan")), "a number in [0, 1]"),
        ("(0, 1]", (1,), (0,), "a number in (0, 1]"),
        ("[0, 1)", (0,), (1,), "a number in [0, 1)"),
        ("(0, inf)", (1e-9, 1e9), (0, float("inf")), "a positive number"),
        ("[0, inf)", (0,), (-1,), "a non-negative number"),
    ],
)
def test_check_number(interval, valid, invalid, words):
    for value in valid:
        check_number("rate", value, interval)
    for value in invalid:
        with pytest.raises(ValueError) as error:
            check_number("rate", value, interval)
        assert str(error.value) == f"`rate` must be {words}, got {value!r}"


@pytest.mark.parametrize(
    "limits, invalid, words",
    [
        ((0,), (-1, 1.0, True, None, 1 << 31), "a non-negative int"),
        ((1,), (0, "1"), "a positive int"),
        ((2,), (1,), "an int of at least 2"),
        ((0, 5), (-1, 6), "an int from 0 to 5"),
    ],
)
def test_check_int(limits, invalid, words):
    check_int("count", 3, *limits)
    for value in invalid:
        with pytest.raises(ValueError) as error:
            check_int("count", value, *limits)
        assert str(error.value) == f"`count` must be {words}, got {value!r}"


def test_optional_arguments():
    check_int("count", None, 1, optional=True)
    check_number("rate", None, "(0, 1)", optional=True)
    check_choice("kind", None, ("a", "b"), optional=True)
    with pytest.raises(ValueError, match="`count` must be a positive int or None, got 0"):
        check_int("count", 0, 1, optional=True)


def test_check_range():
    check_range("scale", (0.1, 1), highest=1)
    for value in ((0, 1), (0.5, 0.1), (0.5, 2), (0.5,), 0.5, ("a", "b")):
        with pytest.raises(ValueError, match="`scale` must be two numbers, 0 < lowest <= highest <= 1, got"):
            check_range("scale", value, highest=1)


def test_check_choice_names_the_nearest():
    check_choice("kind", "conv", ("conv", "dense"))
    with pytest.raises(ValueError) as error:
        check_choice("kind", "con", ("conv", "dense"))
    message = "`kind` must be one of 'conv', 'dense', got 'con' (did you mean 'conv'?)"
    assert str(error.value) == message
    with pytest.raises(ValueError, match="got 1"):
        check_choice("kind", 1, ("conv", "dense"))


def test_pair():
    assert pair(3, "size") == pair([3, 3], "size") == pair((np.int64(3), 3), "size") == (3, 3)
    for value in (0, -1, 1.5, (1, 2, 3), "12", (1, 0), 1 << 31):
        with pytest.raises(ValueError, match="`size` must be a positive int or a pair of them"):
            pair(value, "size")


def test_suggestion():
    assert suggestion("hiden_dim", ["mlp_dim", "hidden_dim"]) == " (did you mean 'hidden_dim'?)"
    assert suggestion("zzz", ["mlp_dim"]) == suggestion("zzz", []) == ""
    assert suggestion("vit_bse", [*VARIANTS, *ALIASES]) == " (did you mean 'vit_b16'?)"
    assert suggestion("bit_l16", [*VARIANTS, *ALIASES]) == " (did you mean 'vit_l16'?)"


def test_require():
    require(True, "never raised")
    with pytest.raises(ValueError, match="^two lines$"):
        require(False, "two\nlines")


def test_values_in_messages_are_short():
    assert len(shown("x" * 1000)) == 99 and shown("x" * 1000).startswith("'xxx")
    assert len(brief("x" * 5000)) == 999 and brief(KeyError()) == "KeyError" and brief(" a\n b ") == "a b"
    assert listing(range(1200)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (1,200 in all)"
    assert quoted(["a", "b"]) == "'a', 'b'"
    nested = []
    nested.append(nested)
    assert shown(nested) == "[[...]]" and shown(10**5000) == "<int>"


def test_control_characters_are_escaped():
    assert printable("a\x1b[31m\u202eb\n") == "a\\x1b[31m\\u202eb\\n"
    assert printable_lines("a\tb\n\x07") == "a\tb\n\\x07"
