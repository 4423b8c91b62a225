"""`get_preprocessing`: the evaluation transform of a checkpoint, from its name or its configuration.

assets/timm_checkpoints.json has the settings of timm's checkpoints; tools/make_timm_tables.py
writes it.
"""

import functools
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from vit_tf.checks import brief, check_valid, listing, pair, require, shown, suggestion
from vit_tf.hub.config_values import MODEL_TYPES, config_value, vision_image_size
from vit_tf.hub.sources import PACKAGED, read_source_config
from vit_tf.preprocessing.transform import INTERPOLATIONS, LARGEST_RESIZED, Preprocessing
from vit_tf.variants import ALIASES, VARIANTS


def get_preprocessing(source: str | os.PathLike | dict[str, Any], image_size: Any = None) -> Preprocessing:
    """Returns the `Preprocessing` of a checkpoint.

    Args:
        source: A name of timm or of `vit_tf.list_models()`, with or without a tag
            ("vit_base_patch16_224.augreg_in21k"); a folder with the layout of a repository on the Hugging
            Face hub, "hf:owner/name", or "cifar10"; or the content of timm's config.json or of a
            preprocessor_config.json.
        image_size: int or (height, width), replaces the checkpoint's image size. A side of None keeps the
            checkpoint's, for models that take any size.

    Raises:
        ValueError: the name is unknown, or the configuration is incomplete or not supported.
    """
    if isinstance(source, dict):
        settings = from_configs(source, source)
    elif not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"`source` must be a name, a folder or a dict, got {shown(source)}")
    elif isinstance(source, os.PathLike) or not (settings := from_name(source)):
        settings = from_configs(*read_source_config(source))
    if image_size is None:
        return settings
    sides = zip(pair(image_size, "image_size", unknown=True), pair(settings.image_size, "image_size"))
    return replace(settings, image_size=tuple(side or own for side, own in sides))


@functools.cache
def timm_table() -> dict[str, Any]:
    """Returns the preprocessing of timm's checkpoints, as tools/make_timm_tables.py recorded it."""
    return json.loads((Path(__file__).parents[1] / "assets" / "timm_checkpoints.json").read_text("utf-8"))


def from_name(name):
    """Returns the Preprocessing of an architecture or a checkpoint; None if a configuration tells it."""
    table = timm_table()
    architecture, _, tag = table["renamed"].get(name, name).partition(".")
    architecture = ALIASES.get(architecture, architecture)
    tags = table["architectures"].get(architecture)
    if tags and (not tag or tag in tags):
        return from_timm(table["settings"][tags[tag or next(iter(tags))]])
    if architecture in VARIANTS and not tag:
        return Preprocessing(VARIANTS[architecture].image_size, crop_fraction=1.0)
    if name in PACKAGED or name.startswith("hf:") or os.path.exists(name):
        return None
    if tags:
        raise ValueError(f"unknown tag {shown(tag)} of {architecture}, its tags are {', '.join(tags)}")
    known = {**table["architectures"], **ALIASES, **VARIANTS}
    raise ValueError(
        f"unknown name {shown(name)}{suggestion(architecture, known)}: `vit_tf.list_models()` lists them; "
        "a folder must exist, and a name on the hub must be hf:owner/name"
    )


def from_configs(config, preprocessor):
    """Returns `from_config`; raises a ValueError also for values of wrong types, and for gigantic images."""
    try:
        settings = from_config(config, preprocessor)
    except (TypeError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"the configuration is damaged ({brief(error)}): download it again") from error
    height, width = settings.image_size
    problem = f"the configuration has images of {height:,} x {width:,} pixels"
    require(height * width <= LARGEST_RESIZED, f"{problem}, expected at most {LARGEST_RESIZED:,} in all")
    return settings


def from_config(config, preprocessor):
    """Returns the Preprocessing of timm's config.json, or else of a preprocessor_config.json.

    A model of transformers without a preprocessor_config.json gets the defaults of its image processor.
    """
    if "pretrained_cfg" in config or "input_size" in config:
        settings = config_value(config, "pretrained_cfg", dict, config)
        return from_timm(settings, config_value(config, "model_args", dict, {}))
    if "size" in preprocessor or "crop_size" in preprocessor:
        return from_hugging_face(preprocessor)
    if config.get("model_type") in MODEL_TYPES:
        return from_hugging_face(default_preprocessor(config))
    keys = listing({**config, **preprocessor}) or "nothing"
    raise ValueError(
        "expected timm's config.json, with `pretrained_cfg` or `input_size`, or a preprocessor_config.json, "
        f"with `size`: got {keys}"
    )


# Mean and standard deviation of the pixels, by the names of their data.
HALF = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
CLIP = dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
BILINEAR, BICUBIC = dict(resample=2), dict(resample=3)
# transformers' image processors by the first letters of the model type: how images are resized, and whether
# to a square (a factor of 0) or, before a centred crop, to a shorter side that is larger by a factor.
DEFAULT_PREPROCESSORS = {
    "deit": (IMAGENET | BICUBIC, 256 / 224),
    "dinov2": (IMAGENET | BICUBIC, 256 / 224),
    "dinov3": (IMAGENET | BILINEAR, 0),
    "beit": (HALF | BICUBIC, 0),
    "siglip2": (HALF | BILINEAR, 0),
    "siglip": (HALF | BICUBIC, 0),
    "clip": (CLIP | BICUBIC, 1),
    "aimv2": (CLIP | BICUBIC, 1),
    "": (HALF | BILINEAR, 0),  # ViT and those that share its image processor
}


def default_preprocessor(config):
    """Returns transformers' defaults for a model without a preprocessor_config.json."""
    kind, size = config["model_type"], vision_image_size(config)
    height, width = (size, size) if isinstance(size, int) else size
    starts = (start for start in DEFAULT_PREPROCESSORS if kind.startswith(start))
    values, factor = DEFAULT_PREPROCESSORS[next(starts)]
    if not factor or height != width:
        return dict(size=dict(height=height, width=width), **values)
    crop = dict(crop_size=dict(height=height, width=width), do_center_crop=True)
    return dict(size=dict(shortest_edge=round(height * factor)), **crop, **values)


def from_timm(config, model_args=None):
    """Reads a pretrained configuration of timm; a missing or null value is timm's default."""
    size = config.get("input_size") or (3, 224, 224)
    is_valid = isinstance(size, (list, tuple)) and len(size) == 3
    check_valid("input_size", size, is_valid, "[channels, height, width]")
    model_args = model_args or {}
    channels, *image_size = size
    channels = model_args.get("in_chans") or channels
    hint = "expected 3: preprocess the images yourself"
    require(channels == 3, f"the model takes {shown(channels)} channels, {hint}")
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
    """Reads a preprocessor_config.json, for example of a ViT, DeiT, DINOv2, CLIP or SigLIP.

    A centred crop may be shifted by one pixel against that of transformers, which rounds an odd margin down.
    """
    values = {name: value for name, value in config.items() if value is not None}
    kind = values.get("image_processor_type") or values.get("feature_extractor_type") or ""
    size, crop = values.get("size"), values.get("crop_size") if values.get("do_center_crop") else None
    if isinstance(size, int) and crop and not kind.startswith("DeiT"):  # the meaning in older files
        size = {"shortest_edge": size}
    resized, kept = side_lengths(size), side_lengths(crop or size)
    fractions = {crop_fraction(*sides) for sides in zip(kept, resized)}
    is_centred = isinstance(size, dict) and "shortest_edge" in size
    is_unclear = len(fractions) != 1 or "crop_pct" in values
    is_unclear = is_unclear or (is_centred and (not crop or kept[0] != kept[1]))
    resample = values.get("resample", 2 if kind.startswith("ViT") else 3)
    is_supported = not is_unclear and values.get("do_resize", True) and resample in range(6)
    names = ("do_resize", "size", "do_center_crop", "crop_size", "crop_pct", "resample")
    got = shown({name: values[name] for name in names if name in values}, 300)
    require(is_supported, f"expected a preprocessor that resizes, and may crop, to a single size, got {got}")
    normalizes = values.get("do_normalize", True)
    has_both = {"image_mean", "image_std"} <= values.keys()
    hint = "lacks `image_mean` or `image_std`: add them"
    require(has_both or not normalizes, f"the preprocessor normalises, but {hint}")
    # x * factor - mean, in terms of x / 255
    unit = 255 * values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 255
    return Preprocessing(
        kept,
        interpolation=INTERPOLATIONS[resample],
        crop_fraction=fractions.pop(),
        crop_mode="center" if is_centred else "squash",
        mean=[value / unit for value in (values["image_mean"] if normalizes else (0, 0, 0))],
        std=[value / unit for value in (values["image_std"] if normalizes else (1, 1, 1))],
    )


def side_lengths(size):
    """Returns (height, width) of a size in a preprocessor_config.json, () for any other size."""
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
