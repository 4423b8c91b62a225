"""`preprocessing`: the settings of a checkpoint, from its name or its configuration.

Those of timm's checkpoints are in assets/timm_checkpoints.json, which tools/make_timm_tables.py makes.
"""

import difflib
import functools
import json
import math
import os
from dataclasses import replace
from pathlib import Path

from vit_tf.checks import brief, listing, shown
from vit_tf.preprocessing.transform import INTERPOLATIONS, LARGEST_RESIZED, Preprocessing


def get_preprocessing(source, image_size=None):
    """Returns the `Preprocessing` of a checkpoint.

    Args:
        source: A name of timm's or of `vit_tf.list_models()`, with or without a tag
            ("vit_base_patch16_224.augreg_in21k"); a folder laid out as a repository of the Hugging Face
            hub, or "hf:owner/name"; or the content of timm's config.json or of a preprocessor_config.json.
        image_size: int or (height, width) in the place of the checkpoint's own.

    Raises:
        ValueError: an unknown name, or a configuration that says too little or asks for what is not here.
    """
    if isinstance(source, dict):
        found = read_configs(source, source)
    elif not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"`source` must be a name, a folder or a dict, got {shown(source)}")
    elif isinstance(source, os.PathLike) or not (found := from_name(source)):
        from vit_tf.hub.sources import read_config

        found = read_configs(*read_config(source))
    return found if image_size is None else replace(found, image_size=image_size)


@functools.cache
def timm_table():
    return json.loads((Path(__file__).parents[1] / "assets" / "timm_checkpoints.json").read_text("utf-8"))


def from_name(name):
    """Returns the Preprocessing of an architecture or a checkpoint, None for a folder or a hub's name."""
    from vit_tf.variants import ALIASES, VARIANTS

    table = timm_table()
    architecture, _, tag = table["renamed"].get(name, name).partition(".")
    architecture = ALIASES.get(architecture, architecture)
    tags = table["architectures"].get(architecture)
    if tags and (not tag or tag in tags):
        return from_timm(table["settings"][tags[tag or next(iter(tags))]])
    if architecture in VARIANTS and not tag:
        return Preprocessing(VARIANTS[architecture].image_size, crop_fraction=1.0)
    if name.startswith("hf:") or os.path.exists(name):
        return None
    if tags:
        raise ValueError(f"unknown tag {shown(tag)} of {architecture}, its tags are {', '.join(tags)}")
    known = {**table["architectures"], **ALIASES, **VARIANTS}
    nearest = ", ".join(difflib.get_close_matches(architecture, known)) or "those of vit_tf.list_models()"
    raise ValueError(
        f"unknown name {shown(name)}, the nearest are {nearest}; a folder must exist, and a name on "
        "the hub must be hf:owner/name"
    )


def read_configs(config, preprocessor):
    """As `from_config`; a ValueError also for values of other kinds, or pictures that take gigabytes."""
    try:
        found = from_config(config, preprocessor)
    except (TypeError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"the configuration is damaged ({brief(error)}): download it again") from error
    height, width = found.image_size
    if height * width > LARGEST_RESIZED:
        raise ValueError(
            f"the configuration wants pictures of {height:,} x {width:,} pixels, expected at most "
            f"{LARGEST_RESIZED:,} in all"
        )
    return found


def from_config(config, preprocessor):
    """Returns the Preprocessing of timm's config.json, or else of a preprocessor_config.json.

    A transformers model without the latter gets what its image processor does by default.
    """
    from vit_tf.hub.config_values import read
    from vit_tf.weights.formats.huggingface import MODEL_TYPES, default_preprocessor

    if "pretrained_cfg" in config or "input_size" in config:
        return from_timm(read(config, "pretrained_cfg", dict, config), read(config, "model_args", dict, {}))
    if "size" in preprocessor or "crop_size" in preprocessor:
        return from_hugging_face(preprocessor)
    if config.get("model_type") in MODEL_TYPES:
        return from_hugging_face(default_preprocessor(config))
    keys = listing({**config, **preprocessor}) or "nothing"
    raise ValueError(
        "expected timm's config.json, with `pretrained_cfg` or `input_size`, or a preprocessor_config.json, "
        f"with `size`: got {keys}"
    )


def from_timm(config, model_args=None):
    """Reads a pretrained configuration of timm; what is missing or null there is timm's own default."""
    size = config.get("input_size") or (3, 224, 224)
    if not isinstance(size, (list, tuple)) or len(size) != 3:
        raise ValueError(f"`input_size` must be [channels, height, width], got {shown(size)}")
    channels, *image_size = size
    model_args = model_args or {}
    if (model_args.get("in_chans") or channels) != 3:
        raise ValueError("the model takes images of other than 3 channels: prepare them yourself")
    if config.get("fixed_input_size") and model_args.get("img_size"):
        image_size = model_args["img_size"]
    return Preprocessing(
        image_size,
        interpolation=config.get("interpolation") or "bicubic",
        crop_fraction=config.get("crop_pct") or 0.875,
        crop_mode=config.get("crop_mode") or "center",
        mean=config.get("mean") or (0.485, 0.456, 0.406),  # of ImageNet
        std=config.get("std") or (0.229, 0.224, 0.225),
    )


def from_hugging_face(config):
    """Reads a preprocessor_config.json, of a ViT, DeiT, DINOv2, CLIP or SigLIP for one.

    A centred crop may begin one pixel beside transformers', which rounds an odd margin down.
    """
    given = {key: value for key, value in config.items() if value is not None}
    kind = given.get("image_processor_type") or given.get("feature_extractor_type") or ""
    size, crop = given.get("size"), given.get("crop_size") if given.get("do_center_crop") else None
    if isinstance(size, int) and crop and not kind.startswith("DeiT"):  # so older files say it
        size = {"shortest_edge": size}
    resized, kept = side_lengths(size), side_lengths(crop or size)
    fractions = {crop_fraction(*sides) for sides in zip(kept, resized)}
    covers = isinstance(size, dict) and "shortest_edge" in size
    unclear = len(fractions) != 1 or (covers and (not crop or kept[0] != kept[1])) or "crop_pct" in given
    resample = given.get("resample", 2 if kind.startswith("ViT") else 3)
    if unclear or not given.get("do_resize", True) or resample not in range(6):
        names = ("do_resize", "size", "do_center_crop", "crop_size", "crop_pct", "resample")
        got = {name: given[name] for name in names if name in given}
        raise ValueError(
            f"expected a preprocessor that resizes, and may crop, to one size: got {shown(got, 300)}"
        )
    normalizes = given.get("do_normalize", True)
    if normalizes and not {"image_mean", "image_std"} <= given.keys():
        raise ValueError("the preprocessor normalises, but lacks `image_mean` or `image_std`: add them")
    # x * factor - mean, in terms of x / 255
    unit = 255 * given.get("rescale_factor", 1 / 255) if given.get("do_rescale", True) else 255
    return Preprocessing(
        kept,
        interpolation=INTERPOLATIONS[resample],
        crop_fraction=fractions.pop(),
        crop_mode="center" if covers else "squash",
        mean=[value / unit for value in (given["image_mean"] if normalizes else (0, 0, 0))],
        std=[value / unit for value in (given["image_std"] if normalizes else (1, 1, 1))],
    )


def side_lengths(size):
    """Returns (height, width) of a size in a preprocessor_config.json, () if it says something else."""
    if isinstance(size, int):
        return size, size
    for keys in (("height", "width"), ("shortest_edge", "shortest_edge")):
        if isinstance(size, dict) and size.keys() == set(keys):
            return tuple(size[key] for key in keys)
    return ()


def crop_fraction(kept, size):
    """Returns kept / size, or the float below, so that `floor(kept / fraction)` is `size` again."""
    fraction = kept / size
    return fraction if math.floor(kept / fraction) == size else math.nextafter(fraction, 0)
