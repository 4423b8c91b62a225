"""Files that are written whole or not at all."""

import json
import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path):
    """Gives a temporary path beside `path`; what is written there becomes `path` at the end.

    The temporary name keeps the endings of `path`, since libraries choose the format by them. An
    error inside removes the temporary file and leaves an older `path` as it was.
    """
    path = Path(path)
    partial = path.with_name(f"partial.{path.name}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # on the disk before it takes the name
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path, content):
    """Writes `content` as indented JSON, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
