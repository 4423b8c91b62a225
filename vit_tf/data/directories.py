"""Images in a folder: its tree, walked once, and its files, read whole."""

import os
from functools import partial
from pathlib import Path

from vit_tf.data.containers import ImageContainer
from vit_tf.data.directory_layout import Paths, is_ignored
from vit_tf.data.fingerprints import data_fingerprint, file_fingerprint
from vit_tf.files import open_regular, read_regular, require_regular
from vit_tf.preprocessing.decode import MAX_IMAGE_BYTES
from vit_tf.preprocessing.image_formats import SIGNATURE_BYTES


class ImageFolder(ImageContainer):
    """The image files of a folder: an `ImageContainer`.

    Args:
        path: the folder.
        source: what names the images: the folder, or a table.
    """

    def __init__(self, path, source=None):
        self.path, self.source = Path(path), Path(source or path)

    def read(self, name):
        """Returns the bytes of a regular file; raises a ValueError if it is larger than 256 MiB."""
        return read_regular(os.path.join(self.path, name), MAX_IMAGE_BYTES)

    def read_after_state(self, name):
        return read_regular(os.path.join(self.path, name), MAX_IMAGE_BYTES, is_regular=True)

    def state(self, name):
        status = os.stat(os.path.join(self.path, name))
        require_regular(status)
        return status.st_size, status.st_mtime_ns

    def fingerprint(self, name, data=None):
        return file_fingerprint(self.path, name) if data is None else data_fingerprint(data)


def walk(root):
    """Returns the `Paths` below a folder, hidden ones left out.

    Symbolic links to folders are followed after all real folders, in the order of their paths, unless
    they lead to a folder that has been walked already or that contains the root. So loops end, and the
    result does not depend on the order of the file system. Broken links count as files, so that reading
    reports them.

    Raises:
        PermissionError: a folder cannot be read.
    """
    paths = Paths()
    real_root = os.path.realpath(root)
    seen = {real_root, *parent_folders(real_root)}
    links = walk_real_folders(os.fspath(root), "", seen, paths)
    while links:
        links.sort(reverse=True)
        name = links.pop()
        target = os.path.realpath(os.path.join(root, name))
        if target not in seen:
            seen.add(target)
            paths.folders.add(name)
            links += walk_real_folders(os.fspath(root), name, seen, paths)
    return paths


def read_start(path):
    """Returns the first bytes of a file, which determine its format; b"" if the file cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(SIGNATURE_BYTES)
    except (OSError, ValueError):
        return b""


def parent_folders(path):
    while path != (path := os.path.dirname(path)):
        yield path


def walk_real_folders(root, folder, seen, paths):
    """Adds the files and folders below a folder to `paths` and `seen`; returns the links."""
    links, waiting = [], [folder]
    while waiting:
        folder = waiting.pop()
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if is_ignored(entry.name):
                    continue
                is_link = entry.is_symlink()  # this and the next lines read the kind that the folder lists
                if not (os.path.isdir(entry.path) if is_link else entry.is_dir()):
                    is_file = entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path)
                    if is_file or not os.path.exists(entry.path):
                        paths.add(name, partial(read_start, entry.path))
                    else:
                        paths.special.append(name)
                elif is_link:
                    links.append(name)
                elif (real_path := os.path.realpath(entry.path)) not in seen:
                    seen.add(real_path)
                    paths.folders.add(name)
                    waiting.append(name)
    return links
