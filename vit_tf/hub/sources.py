"""Opening a source of weights: named tensors that are read one at a time. No code in a file runs.

A source is a file (.safetensors, .npz, .pth, .pt, .bin, .ckpt, .pth.tar, or the index of a checkpoint in
several files: model.safetensors.index.json, pytorch_model.bin.index.json), a folder with the layout of a
repository on the Hugging Face hub or of a preset of keras-hub, or the name of such a repository:
`hf:owner/name`, `hf:owner/name@revision`.
Damage is detected when a source is opened, and raises a `ValueError`.
"""

import logging
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vit_tf.checks import brief, listing, require, shown
from vit_tf.files import read_json
from vit_tf.hub import open_clip_folder
from vit_tf.hub.keras_hub_preset import is_preset, preset_configs, read_preset
from vit_tf.hub.lazy_tensor import LazyTensor, MissingFile, Refused
from vit_tf.hub.readers import KERAS_ENDING, READERS, check_ending, read_file, reader_of
from vit_tf.hub.unwrap import Unwrapped, unwrap

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
CONFIGS = (CONFIG, open_clip_folder.CONFIG)
INDEX, TORCH_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
INDEX_ENDING = re.compile(r"\.(safetensors|bin)\.index\.json$")
HUB_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin", TORCH_INDEX, *open_clip_folder.WEIGHTS)
RUN_MODEL = "model"  # the subfolder of a run that holds its model


@dataclass(frozen=True)
class Checkpoint:
    """The content of a source of weights.

    Args:
        source: the source as the user wrote it.
        path: the weight file on this disk; for a checkpoint in several files, their index.
        tensors: the tensors of the ViT by their names in the file, without the prefix.
        config: the content of config.json; empty for a bare file. For OpenCLIP's, see `open_clip_configs`.
        preprocessor: the content of preprocessor_config.json; empty if there is none.
        prefix: the common prefix of the names, see `vit_tf.hub.unwrap`.
        left: the names of the file's other tensors.
    """

    source: str
    path: Path
    tensors: dict[str, LazyTensor]
    config: dict
    preprocessor: dict
    prefix: str = ""
    left: tuple[str, ...] = ()


# Weights in the package, by name. tools/make_pretrained.py writes them.
PACKAGED = {"cifar10": Path(__file__).parents[1] / "assets" / "cifar10"}


def open_checkpoint(source: str | os.PathLike, prefix: str | None = None) -> Checkpoint:
    """Opens a file, a folder, `hf:owner/name[@revision]` or "cifar10" and returns its `Checkpoint`.

    The ViT may stand under a key or a prefix, see `unwrap`; `prefix` chooses one of several.
    Tensors are read later, except those of an .npz file, whose integrity only reading can show.
    """
    find, config, preprocessor = file_finder(source), {}, {}
    if find is not None:
        config, preprocessor = read_configs(find)
    if is_preset(config):
        path, unwrapped = read_preset(find)
        return Checkpoint(str(source), path, config=config, preprocessor=preprocessor, **vars(unwrapped))
    path = Path(source) if find is None else find_weights(source, find)
    select = partial(unwrap, prefix=prefix)
    if INDEX_ENDING.search(path.name):
        unwrapped = open_parts(path, find or partial(find_in_folder, path.parent), select)
    else:
        unwrapped = read_file(path, select)
    return Checkpoint(str(source), path, config=config, preprocessor=preprocessor, **vars(unwrapped))


def read_source_config(source: str | os.PathLike) -> tuple[dict, dict]:
    """Returns `(config, preprocessor)` of a source, as in its `Checkpoint`, without its weights."""
    find = file_finder(source)
    return read_configs(find) if find else ({}, {})


def is_keras_file(source: str | os.PathLike) -> bool:
    """Whether a source is a file of `model.save`, which holds a whole model and not weights alone."""
    return os.fspath(source).lower().endswith(KERAS_ENDING) and os.path.isfile(source)


def file_finder(source):
    """Returns the function that finds the files of a repository by name; None for a bare file."""
    source = str(source)
    if source in PACKAGED and not os.path.exists(source):
        return partial(find_in_folder, PACKAGED[source])
    if source.startswith("hf:"):
        match = HUB_NAME.fullmatch(source)
        expected = "a name on the hub is hf:owner/name or hf:owner/name@revision"
        require(match and ".." not in source, f"{expected}, got {shown(source)}")
        return partial(find_on_hub, *match.groups())
    if os.path.isdir(source):
        source = repository_folder(source)
        if not any(os.path.isfile(os.path.join(source, name)) for name in CONFIGS):
            raise ValueError(
                f"the folder {source!r} has no {CONFIG}, expected it beside model.safetensors as in a "
                "repository of the hub: a weight file without it can be given by its own path"
            )
        return partial(find_in_folder, Path(source))
    if not os.path.isfile(source):
        raise ValueError(
            f"there is no file or folder {shown(source, 300)}: give a {', '.join(READERS)} file, a folder "
            f"with {CONFIG} and model.safetensors, a name on the hub as hf:owner/name, or "
            f"{', '.join(PACKAGED)}"
        )
    if not INDEX_ENDING.search(source) and not is_keras_file(source):
        check_ending(Path(source))
    return None


def repository_folder(folder):
    """Returns the folder with config.json and the weights: the subfolder model/ of a run's folder."""
    inside = os.path.join(folder, RUN_MODEL)
    is_run = os.path.isfile(os.path.join(inside, CONFIG))
    has_weights = any(os.path.isfile(os.path.join(folder, name)) for name in WEIGHTS)
    return inside if is_run and not has_weights else folder


def find_in_folder(folder, name):
    if not (folder / name).is_file():
        raise MissingFile(f"the folder {str(folder)!r} has no {name}")
    return folder / name


def find_on_hub(repository, revision, name):
    """Returns the path of a file in the cache of the hub. A missing file is downloaded."""
    from huggingface_hub import errors, hf_hub_download

    file = f"{name} of hf:{repository}" + (f"@{revision}" if revision else "")
    try:
        with quiet_retries():
            return Path(hf_hub_download(repository, name, revision=revision))
    except errors.EntryNotFoundError as error:
        if not isinstance(error, errors.LocalEntryNotFoundError):
            reason = "the repository has no such file"
        elif isinstance(error.__cause__, errors.OfflineModeIsEnabled):
            reason = "it is not in the cache, and HF_HUB_OFFLINE is set: unset it to download once"
        else:
            cause = brief(error.__cause__ or error)
            reason = f"it is not in the cache, and the hub cannot be reached ({cause}): check the network"
        raise MissingFile(f"{file}: {reason}") from error
    except Exception as error:  # HTTP, disk and transfer errors of several libraries
        reasons = {  # the first is a kind of the second
            errors.GatedRepoError: f"gated: accept its terms on huggingface.co/{repository} and log in",
            errors.RepositoryNotFoundError: "no such repository, or a private one: check the name, or log in",
            errors.RevisionNotFoundError: f"no revision {revision!r}: give a branch, a tag or a commit",
        }
        reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), brief(error))
        raise ValueError(f"{file} cannot be downloaded: {reason}") from error


@contextmanager
def quiet_retries():
    """A scope without two lines per retry of a request: the error at the end says what is wrong."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def read_configs(find):
    try:
        path = find(CONFIG)
    except MissingFile as missing:
        try:
            path = find(open_clip_folder.CONFIG)
        except MissingFile:
            raise missing from None
        return open_clip_folder.open_clip_configs(read_json(path))
    config = read_json(path)
    if is_preset(config):
        return preset_configs(config, find)
    try:
        path = find(PREPROCESSOR)
    except MissingFile:
        return config, {}
    return config, read_json(path)


def find_weights(source, find):
    missing = []
    for name in WEIGHTS:
        try:
            return find(name)
        except MissingFile as error:
            missing.append(error)
    if str(source).startswith("hf:"):
        raise ValueError(f"no weights ({', '.join(WEIGHTS)}) in {source}: {missing[0]}") from missing[0]
    source = repository_folder(source)
    paths = [path for path in sorted(Path(source).iterdir()) if reader_of(path)]
    expected = (
        f"the folder {str(source)!r} must hold one of {', '.join(WEIGHTS)}, or a single other weight file"
    )
    got = listing(path.name for path in paths) or "none"
    require(len(paths) == 1, f"{expected}, got {got}: give one by its own path")
    return paths[0]


def find_part(find, part, index):
    try:
        return find(part)
    except MissingFile as error:
        raise MissingFile(f"{error}, which {index.name} names: download or copy it there") from error


def open_parts(index, find, select):
    """Returns the `Unwrapped` tensors of a checkpoint in several files."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{str(index)!r} must name the file of every tensor in `weight_map`")
    parts, ending = {}, INDEX_ENDING.search(index.name)[1]
    for part in dict.fromkeys(map(str, weight_map.values())):
        # The name may be hostile: it must not lead out of the folder.
        is_plain = re.fullmatch(rf"[^/\\:\0]+\.{ending}", part)
        require(is_plain, f"{str(index)!r} must name plain .{ending} files, got {part[:200]!r}")
        path = Path(os.path.abspath(find_part(find, part, index)))
        # In the hub's cache, cache/models--owner--name/snapshots/commit/file is a link to elsewhere in it.
        root = path.parents[3] if path.parent.parent.name == "snapshots" else path.parent
        is_inside = path.resolve().is_relative_to(root.resolve())
        require(is_inside, f"{str(path)!r} is a link out of its folder: put the file itself there")
        parts[part] = read_file(path, Unwrapped).tensors
    lacking = [name for name, part in weight_map.items() if name not in parts[part]]
    require(not lacking, f"{str(index)!r} names tensors that are not in their files: {listing(lacking)}")
    try:
        return select({name: parts[part][name] for name, part in weight_map.items()})
    except Refused as error:
        raise ValueError(f"{str(index)!r} {error}") from error
