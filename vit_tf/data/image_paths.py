"""The images that a command's arguments mean: files, folders and patterns."""

import glob
import os

from vit_tf.checks import shown
from vit_tf.data.directories import walk
from vit_tf.data.directory_layout import left_out_as_no_images, natural_key
from vit_tf.preprocessing.decode import LONGEST_PATH, URL


def find_image_paths(arguments):
    """Finds the image files that arguments of a command mean.

    Args:
        arguments: list of str, each a file; a folder, which means the images in it and below, in natural
            order; or a pattern such as `photos/*.jpg` or `**/*.png`, which a shell may have left as it was.

    Returns:
        (paths, problems, notes): lists of str, the paths in the order of the arguments, and a line for each
        argument that means no image, and for each folder with other files beside the images.
    """
    paths, problems, notes = [], [], []
    for argument in arguments:
        try:
            found, left_out = find_argument(argument)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        paths += found
        notes += left_out
    return paths, problems, notes


def find_argument(argument):
    """Returns (paths, notes) of one argument; a ValueError where it means no image."""
    if os.path.isdir(argument):
        return find_in_folder(argument)
    if URL.match(argument) or len(argument) > LONGEST_PATH or os.path.lexists(argument):
        return [argument], []  # for the reader to judge
    if not glob.has_magic(argument):
        raise ValueError(f"no image at {shown(argument)}: there is no such file")
    matches = sorted(glob.glob(argument, recursive=True), key=natural_key)
    if not matches:
        raise ValueError(f"no image at {shown(argument)}: no file matches this pattern")
    paths, notes = [], []
    for match in matches:
        # `**` gives folders beside all that lies in them.
        found, left_out = ([], []) if "**" in argument and os.path.isdir(match) else find_argument(match)
        paths += found
        notes += left_out
    return paths, notes


def find_in_folder(folder):
    """Returns (paths, notes) of the images in a folder and below."""
    found = walk(folder)
    left_out = [f"{shown(folder)}: {note}" for note in left_out_as_no_images(found)]
    if not found.images:
        raise ValueError("; ".join([f"no image in the folder {shown(folder)}", *left_out]))
    return [os.path.join(folder, name) for name in sorted(found.images, key=natural_key)], left_out
