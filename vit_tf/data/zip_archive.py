"""Images in a zip, read in place. Nothing is extracted, and the zip may be hostile."""

import os
import posixpath
import re
import zipfile
from functools import partial
from pathlib import Path
from stat import S_ISLNK
from threading import Lock

from vit_tf.checks import brief, require
from vit_tf.data.containers import ImageContainer
from vit_tf.data.directory_layout import Paths, is_ignored
from vit_tf.preprocessing.decode import MAX_IMAGE_BYTES
from vit_tf.preprocessing.image_formats import SIGNATURE_BYTES
from vit_tf.zips import BOUNDED_METHODS

# Images are hard to compress: a zip that exceeds both limits is a bomb of many or overlapping members.
BOMB_BYTES, BOMB_RATIO = 1 << 30, 100
MAX_DEPTH = 100  # a path of 64 KB can name 32,000 folders, each a path of its own


class ImageArchive(ImageContainer):
    """The images of a zip: an `ImageContainer`. Several threads and processes may read at the same time.

    Args:
        path: the zip, also zip64.

    Attributes:
        paths: the `Paths` of its members, hidden ones left out.

    Raises:
        ValueError: the file is damaged or not a zip; a member leads out of the zip or is a symbolic link;
            an image occurs twice, is encrypted, uses another method than deflate, or unpacks to more than
            256 MiB; or all images unpack to more than 100 times the size of the zip and more than 1 GiB.
    """

    lists_fingerprints = True

    def __init__(self, path):
        self.path = self.source = Path(path)
        self._time = os.stat(path).st_mtime_ns
        self.paths = Paths()
        self._members = {}
        self._opened = None
        try:
            archive, _ = self._archive()
        except Exception as error:  # a damaged directory can raise nearly anything
            raise ValueError(f"damaged zip ({brief(error)}): download or copy it again") from error
        for member in archive.infolist():
            self._add(member)
        total = sum(member.file_size for member in self._members.values())
        is_bomb = total > max(BOMB_BYTES, BOMB_RATIO * self.path.stat().st_size)
        problem = f"its images unpack to {total:,} bytes, over {BOMB_RATIO} times its size"
        require(not is_bomb, f"{problem}: this is a zip bomb, do not use it")

    def __reduce__(self):
        return ImageArchive, (self.path,)

    def read(self, name):
        """Returns the bytes of the member `name`; raises a ValueError if the member is damaged."""
        member = self._members[name]
        try:
            return self._unpack(member, member.file_size + 1)
        except Exception as error:  # a damaged member can raise nearly anything
            problem = brief(error)
        raise ValueError(f"damaged in the zip ({problem}): make or download the zip again")

    def state(self, name):
        return self._members[name].file_size, self._time

    def fingerprint(self, name, data=None):
        """Returns the size and the checksum of the member `name`, as listed in the zip's directory."""
        member = self._members[name]
        return f"{member.file_size}-{member.CRC:08x}"

    def _read_start(self, member):
        """Returns the first bytes of a member, which determine its format; b"" if it cannot be read."""
        if member.compress_type not in BOUNDED_METHODS:
            return b""
        try:
            return self._unpack(member, SIGNATURE_BYTES)
        except Exception:  # a damaged member can raise nearly anything
            return b""

    def _unpack(self, member, most):
        """Returns at most the first `most` bytes of a member."""
        archive, lock = self._archive()
        with lock, archive.open(member) as file:
            return file.read(most)

    def _archive(self):
        # A forked process shares the file's position with its parent, so it opens the zip again. Threads take
        # turns: in Python 3.12 and 3.13 zipfile gives one thread another's bytes.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path), Lock()
        return self._opened[1:]

    def _add(self, member):
        path = member.filename.replace("\\", "/")  # written by some programs on Windows
        is_inside = not re.match("/|[A-Za-z]:", path) and ".." not in path.split("/")
        hint = "this zip is unsafe, make it again from the folder itself"
        require(is_inside, f"the member {member.filename!r} leads out of the zip: {hint}")
        problem = f"the member '{path[:40]}...' lies {path.count('/'):,} folders deep"
        require(path.count("/") <= MAX_DEPTH, f"{problem}: expected {MAX_DEPTH} at most")
        name = posixpath.normpath(path)
        if any(map(is_ignored, name.split("/"))):
            return
        if member.is_dir() or path.endswith("/"):
            self.paths.folders.add(name)
            return
        label = f"the member {member.filename!r}"
        is_link = S_ISLNK(member.external_attr >> 16)
        require(not is_link, f"{label} is a symbolic link: zip the files themselves (without zip -y)")
        num_images = len(self.paths.images)
        self.paths.add(name, partial(self._read_start, member))
        if len(self.paths.images) == num_images:
            self.paths.folders.add(posixpath.dirname(name))
            return
        is_new = name not in self._members
        require(is_new, f"{label} occurs twice in the zip: make the zip again from the folder")
        require(not member.flag_bits & 1, f"{label} is encrypted: make the zip without a password")
        method, hint = member.compress_type, "use deflate, zip's usual one"
        require(method in BOUNDED_METHODS, f"{label} is packed by method {method}: {hint}")
        is_bounded = member.file_size <= MAX_IMAGE_BYTES
        require(is_bounded, f"{label} unpacks to {member.file_size:,} bytes: at most {MAX_IMAGE_BYTES:,}")
        self._members[name] = member
