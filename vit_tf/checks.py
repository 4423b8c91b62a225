"""Checks of arguments, and what error messages show of values: short and safe to print."""

import difflib
import math
import re
from numbers import Integral, Real

# Control characters (C0, DEL, C1), separators of lines, overrides of the direction of writing, invisible
# tags, and bytes of file names that are no text (surrogates).
CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f\ud800-\udfff"
IN_NAMES = re.compile(f"[{CONTROL}]")
IN_LINES = re.compile(f"(?![\n\t])[{CONTROL}]")


def shown(value, most=100):
    """Returns the `repr` of a value; a long one is cut in its middle."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep; an int of too many digits
        text = f"<{type(value).__name__}>"
    return cut(text, most)


def listing(values, limit=10, most=100):
    """Returns the first values as text, each cut where it is long, and how many there are if more."""
    values = list(values)
    text = ", ".join(cut(str(value), most) for value in values[:limit])
    return text + (f", ... ({len(values):,} in all)" if len(values) > limit else "")


def quoted(names, limit=5):
    """Returns `listing` of names in quotes, each as `shown`."""
    return listing(map(shown, names), limit)


def brief(error, most=500):
    """Returns the message of an error on one line, cut in its middle where it is long."""
    return cut(" ".join(str(error).split()), most) or type(error).__name__


def cut(text, most=100):
    """Returns a text, or its two ends where it has more than `most` letters."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


def printable(text):
    """Returns a name as one line of text that is safe to print: `repr`'s escapes for control characters."""
    return IN_NAMES.sub(escape, str(text))


def printable_lines(text):
    """Returns `printable` of a text of several lines: line breaks and tabs stay."""
    return IN_LINES.sub(escape, str(text))


def escape(match):
    return match[0].encode("unicode_escape").decode()


def suggestion(word, words):
    """Returns " (did you mean 'x'?)" with the nearest of the words; an empty string if none is near."""
    nearest = difflib.get_close_matches(str(word), words, n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def require(is_met, message):
    """Raises a ValueError with the message on one line unless `is_met`."""
    if not is_met:
        raise ValueError(brief(message, 1000))


def is_number(value, kind=Real):
    """Returns whether a value is a finite number of a kind: `numbers.Real` or `numbers.Integral`."""
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) < 1e300


def check_int(name, value, lowest, highest=None):
    """Raises a ValueError unless `value` is an int from `lowest` to `highest`."""
    if not (is_number(value, Integral) and value >= lowest and (highest is None or value <= highest)):
        limits = f"of {lowest} or more" if highest is None else f"from {lowest} to {highest}"
        raise ValueError(f"`{name}` must be an int {limits}, got {shown(value)}")


def check_positive(name, value):
    """Raises a ValueError unless `value` is a number above 0."""
    if not (is_number(value) and value > 0):
        raise ValueError(f"`{name}` must be a number above 0, got {shown(value)}")


def check_probability(name, value):
    """Raises a ValueError unless `value` is a number in [0, 1]."""
    if not (is_number(value) and 0 <= value <= 1):
        raise ValueError(f"`{name}` must be a number in [0, 1], got {shown(value)}")


def check_range(name, value, highest=math.inf):
    """Raises a ValueError unless `value` is two numbers with 0 < first <= second <= highest."""
    is_pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(map(is_number, value))
    if not (is_pair and 0 < value[0] <= value[1] <= highest):
        limit = "" if highest == math.inf else f" <= {highest}"
        raise ValueError(f"`{name}` must be two numbers, 0 < lowest <= highest{limit}, got {shown(value)}")


def pair(value, name):
    """Returns `value`, an int or two ints (height, width), as a tuple of two positive ints."""
    sizes = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(sizes) != 2 or not all(isinstance(s, Integral) and 0 < s < 1 << 31 for s in sizes):
        found = f"got {shown(value)}"
        raise ValueError(f"`{name}` must be a positive int or a pair of them (height, width), {found}")
    return int(sizes[0]), int(sizes[1])
