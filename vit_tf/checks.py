"""Argument checks, and helpers for error messages: short and safe to print, whatever the values are.

This module imports neither Keras nor NumPy, so that arguments can be checked before either is loaded.
"""

import difflib
import math
import os
import re
from numbers import Integral, Real

LARGEST = (1 << 31) - 1  # of sizes and counts, unless a check names another limit: of int32
# Control characters (C0, DEL, C1), line separators, overrides of the writing direction, invisible tags, and
# bytes of file names that are not text (surrogates).
CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f\ud800-\udfff"
IN_NAMES = re.compile(f"[{CONTROL}]")
IN_LINES = re.compile(f"(?![\n\t])[{CONTROL}]")


def require(is_met, message):
    """Raises a ValueError with a message of one line unless a condition is met."""
    if not is_met:
        raise ValueError(brief(message))


def is_int(value):
    """Whether a value is an integer of Python or NumPy, and not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value):
    """Whether a value is a finite real number of Python or NumPy, and not a bool."""
    limit = 1 << 1023 if is_int(value) else math.inf  # a larger int is no float
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) < limit


def check_int(name, value, lowest, highest=LARGEST, optional=False):
    """Raises a ValueError unless the argument `name` is an int in [lowest, highest], or None if optional."""
    expected = {0: "a non-negative int", 1: "a positive int"}.get(lowest, f"an int of at least {lowest}")
    if highest not in (LARGEST, math.inf):
        expected = f"an int from {lowest} to {highest}"
    check_valid(name, value, is_int(value) and lowest <= value <= highest, expected, optional)


def check_number(name, value, interval, optional=False):
    """Raises a ValueError unless the argument `name` is a number in an interval, or None if optional.

    Args:
        interval: text such as "[0, 1)", which includes 0 and excludes 1. An end may be "inf" or "-inf".
    """
    words = {"(0, inf)": "a positive number", "[0, inf)": "a non-negative number"}
    low, high = map(float, interval[1:-1].split(","))
    is_inside = is_number(value) and low <= value <= high
    is_inside = is_inside and (interval[0] == "[" or value > low) and (interval[-1] == "]" or value < high)
    check_valid(name, value, is_inside, words.get(interval, f"a number in {interval}"), optional)


def check_range(name, value, highest=math.inf):
    """Raises a ValueError unless the argument `name` is two numbers with 0 < first <= second <= highest."""
    is_pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(map(is_number, value))
    limit = "" if highest == math.inf else f" <= {highest}"
    is_valid = is_pair and 0 < value[0] <= value[1] <= highest
    check_valid(name, value, is_valid, f"two numbers, 0 < lowest <= highest{limit}")


def check_choice(name, value, choices, optional=False):
    """Raises a ValueError, with the nearest choice, unless the argument `name` is one of some strings."""
    expected = f"one of {', '.join(map(repr, choices))}"
    is_valid = isinstance(value, str) and value in choices
    check_valid(name, value, is_valid, expected, optional, suggestion(value, choices))


def check_valid(name, value, is_valid, expected, optional=False, hint=""):
    """Raises a ValueError that says what the argument `name` must be, unless its value is valid."""
    if not is_valid and not (optional and value is None):
        alternative = " or None" if optional else ""
        label = name if name.startswith("--") else f"`{name}`"
        raise ValueError(f"{label} must be {expected}{alternative}, got {shown(value)}{hint}")


def pair(value, name, unknown=False):
    """Returns the argument `name`, a positive int or two (height, width), as a tuple of two ints.

    Args:
        unknown: bool, whether each of two may be None, for any size.

    Raises:
        ValueError: the value is neither.
    """
    is_pair = isinstance(value, (tuple, list))
    sizes = tuple(value) if is_pair else (value, value)
    known = [size for size in sizes if size is not None or not (unknown and is_pair)]
    is_valid = len(sizes) == 2 and all(isinstance(s, Integral) and 0 < s <= LARGEST for s in known)
    any_size = ", None for any" if unknown else ""
    check_valid(name, value, is_valid, f"a positive int or a pair of them (height, width{any_size})")
    return tuple(None if size is None else int(size) for size in sizes)


def suggestion(word, words):
    """Returns " (did you mean 'x'?)" with the word that is nearest, or "" if none of `words` is near.

    Of words with as many equal letters, the nearest begins the same way: people rarely mistype a beginning.
    """
    word = str(word)
    near = difflib.get_close_matches(word, words, n=20)

    def likeness(other):
        same_start = len(os.path.commonprefix([word, other])) / max(len(word), 1)
        return difflib.SequenceMatcher(None, word, other).ratio() + same_start

    nearest = max((other for other in words if other in near), key=likeness, default=None)
    return f" (did you mean {nearest!r}?)" if near else ""


def brief(error, most=1000):
    """Returns the message of an error, or a text, on one line; long text is cut in its middle."""
    return cut(" ".join(str(error).split()), most) or type(error).__name__


def shown(value, most=100):
    """Returns the `repr` of a value; long text is cut in its middle."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep; an int of too many digits
        text = f"<{type(value).__name__}>"
    return cut(text, most)


def listing(values, limit=10):
    """Returns the first values as text, each cut if long, and the number of values if there are more."""
    values = list(values)
    text = ", ".join(cut(str(value)) for value in values[:limit])
    return text + (f", ... ({len(values):,} in all)" if len(values) > limit else "")


def quoted(names):
    """Returns the first five names in quotes, see `listing` and `shown`."""
    return listing(map(shown, names), 5)


def cut(text, most=100):
    """Returns a text, or its two ends if it has more than `most` characters."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


def printable(text):
    """Returns a name as one line of text that is safe to print: `repr`'s escapes for control characters."""
    return IN_NAMES.sub(escape, str(text))


def printable_lines(text):
    """Returns text of several lines that is safe to print: as `printable`, but line breaks and tabs stay."""
    return IN_LINES.sub(escape, str(text))


def escape(match):
    return match[0].encode("unicode_escape").decode()
