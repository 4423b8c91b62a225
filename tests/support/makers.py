"""The models of the programs of DINO, DINOv2, DINOv3 and MAE, which are no packages.

The folder in the environment variable `MAKERS_CODE` has clones of their repositories:

    for name in dino dinov2 dinov3 mae; do git clone https://github.com/facebookresearch/$name; done
"""

import importlib
import os
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch

FOLDER = os.environ.get("MAKERS_CODE")
MODULES = {  # where each program has its model, by the first word of the name of a case
    "DINO": ("dino", "vision_transformer", "VisionTransformer"),
    "DINOv2": ("dinov2", "dinov2.models.vision_transformer", "DinoVisionTransformer"),
    "DINOv3": ("dinov3", "dinov3.models.vision_transformer", "DinoVisionTransformer"),
    "MAE": ("mae", "models_mae", "MaskedAutoencoderViT"),
}
FIXED = (".bias_mask", ".periods")  # buffers whose values mean something


def build(name, arguments):
    """Returns the model of a program for the name of a case."""
    repository, module, kind = MODULES[name.partition(" ")[0]]
    arguments = dict(arguments)
    if repository in ("dino", "mae"):
        arguments["norm_layer"] = partial(torch.nn.LayerNorm, eps=1e-6)
    if repository == "dino":
        arguments |= dict(img_size=[arguments["img_size"]], qkv_bias=True)
    sys.path.insert(0, str(Path(FOLDER) / repository))
    try:
        with warnings.catch_warnings(action="ignore"):
            if repository == "mae":
                for_old_packages()
            model = getattr(importlib.import_module(module), kind)(**arguments)
            if repository == "dinov3":
                model.init_weights()
            return model
    finally:
        sys.path.pop(0)


def for_old_packages():
    """Gives MAE, of 2022, what NumPy and timm had then."""
    from timm.models import vision_transformer

    np.float = float
    block = vision_transformer.Block
    if isinstance(block, type):
        vision_transformer.Block = lambda *args, qk_scale, **options: block(*args, **options)


def features(model, images):
    """Returns the features of the class token."""
    if hasattr(model, "forward_encoder"):  # MAE, without a mask
        return model.forward_encoder(images, 0.0)[0][:, 0]
    return model(images)
