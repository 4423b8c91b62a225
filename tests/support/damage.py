"""Damages files and JSON trees in ways that know their structure, the same in every run."""

import copy
import json
import math
import warnings

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SIZES = dict(
    image_size=32, patch_size=16, hidden_dim=24, num_layers=2, num_heads=3, mlp_dim=32, num_classes=5
)


BUDGET = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


WEIRD = st.sampled_from(
    [
        *(None, True, False, 0, -1, 1, 3, 16, 2**31, 2**63, 10**30, 10**400, 0.5, -0.5, 1e-300, 1e300),
        *(math.inf, -math.inf, math.nan, "", "a", "x" * 100_000, "\0\x1b[31m\n", "name", "\ud800"),
        *([], {}, [[]], [None], [0] * 5, [1, 2, 3], ["a"] * 3, {"a": 1}, {"0": {}}, [1e400] * 3, [[1] * 3]),
    ]
)
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "set", "delete", "rename", "add"]), st.integers(0, 10_000), WEIRD),
    min_size=1,
    max_size=3,
)
BYTE_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "cut", "insert", "repeat"]), st.floats(0, 1), st.binary(max_size=8)
    ),
    min_size=1,
    max_size=4,
)


def nodes(tree, path=()):
    """Yields the paths of all values in a JSON tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from nodes(value, (*path, key))


def damaged(tree, edits):
    """Returns a JSON tree with values replaced, left out, renamed and added."""
    tree = copy.deepcopy(tree)
    for kind, choice, value in edits:
        paths = list(nodes(tree))
        if not paths:
            break
        *parents, key = paths[choice % len(paths)]
        parent = tree
        for part in parents:
            parent = parent[part]
        if kind == "set" or (isinstance(parent, list) and kind != "delete"):
            parent[key] = copy.deepcopy(value)
        elif kind == "delete":
            del parent[key]
        elif kind == "rename":
            parent[str(value)] = parent.pop(key)
        else:
            parent[str(value)] = copy.deepcopy(value)
    return tree


def damaged_bytes(data, edits):
    data = bytearray(data)
    for kind, where, value in edits:
        i = int(where * len(data))
        if kind == "set":
            data[i : i + len(value)] = value[: max(0, len(data) - i)]
        elif kind == "cut":
            del data[i : None if where > 0.5 else i + len(value)]
        elif kind == "insert":
            data[i:i] = value
        else:
            data[i:i] = data[i : i + 100]
    return bytes(data)


def survives(function, *args):
    """The function returns, or raises a ValueError whose message is short."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*args)
        except ValueError as error:
            assert len(str(error)) < 2500, str(error)[:3000]
            return None


def write_json(path, content):
    path.write_text(json.dumps(content))
