"""What messages show of values that strangers chose: short, whatever the values are."""


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


def brief(error, most=500):
    """Returns the message of an error on one line, cut in its middle where it is long."""
    return cut(" ".join(str(error).split()), most) or type(error).__name__


def cut(text, most=100):
    """Returns a text, or its two ends where it has more than `most` letters."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"
