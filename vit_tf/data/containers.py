"""`ImageContainer`: where the bytes of images are, such as a folder, a zip or shards."""

import os
from pathlib import Path


class ImageContainer:
    """What holds the images of `ImageFiles`. Several threads and processes may read at the same time.

    Attributes:
        source: what the user names: the folder, the zip or the table.
        is_checked: bool, whether all images were decoded once, when the container was written.
        lists_fingerprints: bool, whether `fingerprint` reads no image.
    """

    source: Path
    is_checked = False
    lists_fingerprints = False

    def read(self, name: str) -> bytes:
        """Returns the bytes of an image; raises an OSError or a ValueError."""
        raise NotImplementedError

    def read_after_state(self, name: str) -> bytes:
        """Returns the same, just after `state`, which has looked at the file already."""
        return self.read(name)

    def state(self, name: str) -> tuple[int, int]:
        """Returns the size of an image and its time of change (ns), which differ after most changes."""
        raise NotImplementedError

    def fingerprint(self, name: str, data: bytes | None = None) -> str:
        """Returns the fingerprint of an image, see `fingerprints`; from its bytes if they are given."""
        raise NotImplementedError


class StoredImage:
    """An image of `ImageFiles`, which is read in the thread that decodes it. Its text is a path.

    Args:
        files: the `ImageFiles`.
        index: int, the position of the image.
    """

    def __init__(self, files, index):
        self.files, self.index = files, index

    def __str__(self):
        return os.path.join(self.files.root, self.files.names[self.index])

    def read(self, _):
        return self.files.read(self.index)


def container_of(reader):
    """Returns the `ImageContainer` whose `read` a function is; None for other functions."""
    container = getattr(reader, "__self__", None)
    return container if isinstance(container, ImageContainer) else None
