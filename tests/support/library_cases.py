"""Small models of other libraries, whose files `load_weights` reads; `libraries.py` builds them there.

A case says how its library builds the model; the recorded one in `fixtures/libraries.json` adds the names and
shapes of the file, its config.json and what the library computes. Values and images come from generators that
are seeded by name.
"""

import json

import numpy as np
from safetensors.numpy import save_file

from support.cases import random_images, random_weights
from vit_tf import build_vit

SIZES = dict(hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=80)
VISION = dict(**SIZES, image_size=48, patch_size=16)
TEXT = dict(**SIZES, vocab_size=20, max_position_embeddings=8)
BOTH = dict(vision_config=VISION, text_config=TEXT)
DEEP = dict(vision_config=VISION | dict(num_hidden_layers=2), text_config=TEXT)
DECODER = dict(decoder_hidden_size=24, decoder_num_hidden_layers=1, decoder_num_attention_heads=3)
DECODER |= dict(decoder_intermediate_size=32, mask_ratio=0.0)
SIGLIP2 = dict(**SIZES, num_patches=9, patch_size=16)
# Models of transformers: class, configuration, what is compared: a field of the output, or the mean or the
# first of its tokens.
TRANSFORMERS = [
    ("CLIPVisionModel", VISION, "pooler_output"),
    ("CLIPVisionModelWithProjection", VISION | dict(projection_dim=20), "image_embeds"),
    ("CLIPForImageClassification", BOTH | dict(projection_dim=20, num_labels=5), "logits"),
    ("CLIPModel", DEEP | dict(projection_dim=20), "image_features"),
    ("SiglipVisionModel", VISION, "pooler_output"),
    ("SiglipVisionModel", VISION | dict(vision_use_head=False, image_size=50), "mean"),
    ("SiglipForImageClassification", BOTH | dict(num_labels=5), "logits"),
    ("SiglipModel", BOTH, "image_features"),
    ("Siglip2VisionModel", SIGLIP2, "pooler_output"),
    ("Siglip2Model", dict(vision_config=SIGLIP2, text_config=TEXT), "image_features"),
    ("ViTMAEModel", VISION | dict(mask_ratio=0.0), "token"),
    ("ViTMAEForPreTraining", VISION | DECODER, "token"),
    ("ViTMSNForImageClassification", VISION | dict(num_labels=5), "logits"),
    ("IJepaModel", VISION, "mean"),
    ("IJepaForImageClassification", VISION | dict(num_labels=5), "logits"),
    ("Aimv2VisionModel", VISION, "mean"),
    ("Aimv2Model", BOTH | dict(projection_dim=20), "mean"),
]
# Those whose modules have other names than their files, since version 5.
MODULES = ("ViTMAEForPreTraining", "ViTMSNForImageClassification", "IJepaModel")


def transformers_cases():
    for model, config, output in TRANSFORMERS:
        sizes = config.get("vision_config", config)
        side = sizes.get("image_size", 48)
        bare = "" if config.get("vision_use_head", True) else " without a head"
        case = dict(library="transformers", model=model, output=output, image_size=[side, side])
        case["reference"] = config
        yield case | dict(id=f"{model}{bare}", names="file")
        if model in MODULES:
            yield case | dict(id=f"{model} of modules", names="module")


def library_cases():
    return [*transformers_cases()]


def write_case(case, folder, seed=0):
    """Writes the file of a recorded case, with its config.json if it has one, and returns the source."""
    arrays = {name: np.asarray(array) for name, array in random_weights(case["shapes"], seed).items()}
    save_file(arrays, folder / "model.safetensors")
    if case.get("config") is None:
        return folder / "model.safetensors"
    (folder / "config.json").write_text(json.dumps(case["config"]))
    return folder


def build_case(case, source):
    """Builds our model from the source of a case."""
    return build_vit(case.get("variant"), weights=source, **case.get("overrides", {}))


def case_images(case, seed=0):
    return np.asarray(random_images(case, seed))
