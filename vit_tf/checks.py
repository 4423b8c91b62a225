"""What messages show of values that strangers chose: short, and safe to print, whatever the values are."""

import re

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
