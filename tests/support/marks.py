"""Choice of the parameters that `make test-fast` and the other backends run."""

import pytest


def mostly_slow(cases, fast, exhaustive=()):
    """Returns the parameters of a test: those outside `fast` are marked `slow` and `tensorflow_only`.

    Args:
        cases: dict from the ids of the parameters to their values; a tuple is several values.
        fast: the ids that `make test-fast` and the other backends run, each of them in `cases`.
        exhaustive: the ids that are marked `exhaustive`, too: others in `cases` stand for them.
    """
    assert {*fast, *exhaustive} <= set(cases) and not set(fast) & set(exhaustive)
    parameters = []
    for name, values in cases.items():
        values = values if isinstance(values, tuple) else (values,)
        marks = () if name in fast else (pytest.mark.slow, pytest.mark.tensorflow_only)
        marks += (pytest.mark.exhaustive,) if name in exhaustive else ()
        parameters.append(pytest.param(*values, id=name, marks=marks))
    return parameters
