"""Image paths from the arguments of a command: files, folders and patterns."""

import glob
import os
from pathlib import Path

from vit_tf.checks import require, shown
from vit_tf.data.containers import StoredImage
from vit_tf.data.directories import walk
from vit_tf.data.directory_layout import left_out_as_no_images, natural_key
from vit_tf.data.image_files import find_shards
from vit_tf.data.shards.shard_index import is_shard_folder
from vit_tf.preprocessing.decode import LONGEST_PATH, URL


def find_image_paths(arguments):
    """Returns the image files that the arguments of a command name.

    Args:
        arguments: list of str. Each is a file; a folder, for all images below the folder in natural order;
            or a pattern such as `photos/*.jpg` or `**/*.png` that the shell has not expanded.

    Returns:
        (paths, problems, notes): lists of str: the paths in the order of the arguments, one line per file or
        folder without an image, and one line per folder that also has other files.
    """
    paths, problems, notes = [], [], []
    for name in [name for argument in arguments for name in expanded(argument)]:
        try:
            paths_of_name, left_out = find_argument(name)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        paths += paths_of_name
        notes += left_out
    return paths, problems, notes


def expanded(argument):
    """Returns the files and folders that a pattern matches; else the argument itself, as one of a list."""
    if is_name(argument) or not glob.has_magic(argument):
        return [argument]
    matches = sorted(glob.glob(argument, recursive=True), key=natural_key)
    if "**" in argument:  # it matches folders as well as the files in them
        matches = [match for match in matches if not os.path.isdir(match)]
    return matches or [argument]


def is_name(argument):
    """Whether an argument is a URL or a path, and no pattern."""
    return URL.match(argument) or len(argument) > LONGEST_PATH or os.path.lexists(argument)


def find_argument(argument):
    """Returns (paths, notes) of a file or folder; raises a ValueError if there is no image."""
    if os.path.isdir(argument):
        return find_in_folder(argument)
    if is_name(argument):
        return [argument], []  # reading reports whether this is an image
    reason = "no file matches this pattern" if glob.has_magic(argument) else "there is no such file"
    raise ValueError(f"no image at {shown(argument)}: {reason}")


def find_in_folder(folder):
    """Returns (paths, notes) of all images below a folder; `StoredImage`s of a folder of shards."""
    tree = None if is_shard_folder(Path(folder)) else walk(folder)
    if sharded := find_shards(Path(folder), tree):
        return [StoredImage(sharded, i) for i in range(len(sharded))], []
    left_out = [f"{shown(folder)}: {note}" for note in left_out_as_no_images(tree)]
    require(tree.images, "; ".join([f"no image in the folder {shown(folder)}", *left_out]))
    return [os.path.join(folder, name) for name in sorted(tree.images, key=natural_key)], left_out
