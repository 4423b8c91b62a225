"""Folders and repositories of OpenCLIP: open_clip_config.json beside the weights of the whole model.

Reference: https://github.com/mlfoundations/open_clip, `push_to_hf_hub.py` and `transform.py`.
"""

from vit_tf.checks import require, shown
from vit_tf.hub.config_values import config_value

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
MODEL = "open_clip"  # the key of the model's settings in `Checkpoint.config`
MEAN = [0.48145466, 0.4578275, 0.40821073]  # OpenAI's
STD = [0.26862954, 0.26130258, 0.27577711]
RESAMPLES = {"bilinear": 2, "bicubic": 3, "random": 3}  # random while training


def open_clip_configs(content):
    """Returns (config, preprocessor) for the content of an open_clip_config.json.

    The settings of the model are `config[MODEL]`, and those of its images are written as those of a
    preprocessor_config.json of transformers.
    """
    model = config_value(content, "model_cfg", dict, {}, CONFIG)
    vision = config_value(model, "vision_cfg", dict, None, CONFIG)
    require(vision is not None, f"{CONFIG} must have 'vision_cfg' in 'model_cfg', got {shown(list(model))}")
    settings = config_value(content, "preprocess_cfg", dict, {}, CONFIG)
    return {MODEL: model}, preprocessor_of(settings, image_size(vision))


def image_size(vision):
    """Returns the image size in the settings of an image tower: int or [height, width]."""
    return config_value(vision, "image_size", (int, list), 224, CONFIG)


def preprocessor_of(settings, size):
    """Returns the keys of a preprocessor_config.json for the `preprocess_cfg` of images of a size.

    Raises:
        ValueError: the images are resized in a way that no preprocessing here knows.
    """
    mode = config_value(settings, "resize_mode", str, "shortest", CONFIG)
    interpolation = config_value(settings, "interpolation", str, "bicubic", CONFIG)
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    is_known = mode == "squash" or (mode == "shortest" and height == width)
    expected = "'squash', or 'shortest' for square images"
    require(is_known, f"{CONFIG} must have {expected} as 'resize_mode', got {shown(mode)}")
    expected = ", ".join(map(repr, RESAMPLES))
    is_known = interpolation in RESAMPLES
    require(is_known, f"{CONFIG} must have one of {expected} as 'interpolation', got {shown(interpolation)}")
    whole = dict(height=height, width=width)
    sizes = dict(size=whole) if mode == "squash" else dict(size=dict(shortest_edge=height), crop_size=whole)
    return dict(
        **sizes,
        do_center_crop=mode != "squash",
        resample=RESAMPLES[interpolation],
        image_mean=config_value(settings, "mean", list, MEAN, CONFIG),
        image_std=config_value(settings, "std", list, STD, CONFIG),
    )
