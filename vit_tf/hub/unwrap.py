"""Finds the ViT in the files of training scripts: under dictionary keys, prefixes, or both.

Dictionaries in dictionaries are flattened to names joined by dots, so keys are prefixes, too:
`{"state_dict": {"module.backbone.patch_embed.proj.weight": x}}` has the ViT under
`state_dict.module.backbone.`, since the patch embedding of a known format stands there.
"""

import re
from dataclasses import dataclass

from vit_tf.checks import quoted, shown
from vit_tf.hub.lazy_tensor import Refused
from vit_tf.hub.torch_file import Module

HUGGING_FACE = "embeddings.patch_embeddings.projection.weight"
# In transformers, what a model is called beside its head.
MODEL_PREFIXES = ("vit", "deit", "dinov2", "dinov2_with_registers", "ijepa", "beit")
TOWERS = ("embeddings.patch_embedding.weight", "embeddings.patch_embed.weight")  # CLIP and SigLIP; AIMv2
# The patch embedding of each format, and a tensor that must stand beside it. The first match counts.
PATCH_EMBEDDINGS = {
    **{f"{model}.{HUGGING_FACE}": None for model in MODEL_PREFIXES},  # a head stands beside the model
    HUGGING_FACE: None,
    **{f"vision_model.{tower}": None for tower in TOWERS},  # a projection or a head stands beside it
    **dict.fromkeys(TOWERS),
    "embeddings.patch_embeddings.weight": None,  # DINOv3 of transformers
    "conv_proj.weight": "class_token",  # torchvision
    "trunk.patch_embed.proj.weight": None,  # OpenCLIP with an image tower of timm
    "patch_embed.proj.weight": None,  # timm, DeiT, DINO, DINOv2, MAE, I-JEPA
    "patch_embed.stages.0.weight": None,  # our overlapping stems
    "patch_embed.stages.0.pooled.conv.weight": None,  # our pooled stem
    "patch_embed.backbone.0.conv.weight": None,  # MobileCLIP in timm
    "to_patch_embedding.2.weight": None,  # vit-pytorch
    "conv1.weight": "class_embedding",  # OpenAI's CLIP and OpenCLIP
    "beit3.vision_embed.proj.weight": None,
    "patch_emb.0.block.conv.weight": None,  # MobileCLIP
    "preprocessor.patchifier.proj.weight": None,  # AIMv2
    "patch_generator.embedder.weight": None,  # RADIO
}
# Parts of names that wrappers of submodules add.
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# If a file has ViTs under both keys, the first is preferred, as in timm.
PREFERRED = (
    ("state_dict_ema", "state_dict"),
    ("state_dict_ema", "model"),
    ("model_ema", "state_dict"),
    ("model_ema", "model"),
    ("encoder", "target_encoder"),
    ("teacher", "student"),  # DINO and its successors evaluate the teacher
)
GROUPS = (dict, Module)  # of tensors by name
# Limits for nested dictionaries: a pickle may repeat one dictionary, or one key, many times.
MOST_ITEMS, MOST_LEVELS, MOST_LETTERS = 1_000_000, 12, 1 << 24


@dataclass(frozen=True)
class Unwrapped:
    """The result of `unwrap`.

    Args:
        tensors: dict of the tensors under the prefix, by the rest of their names.
        prefix: the common prefix of their names, such as "state_dict.module.", or "".
        left: names of the tensors elsewhere.
    """

    tensors: dict
    prefix: str = ""
    left: tuple[str, ...] = ()


def flatten(content, is_tensor):
    """Returns the tensors in the nested dictionaries of a file by their keys, joined with dots.

    Raises:
        Refused: two tensors get the same name, or there are too many items or characters in names.
    """
    tensors, count, letters = {}, 0, 0
    level = [("", content)] if isinstance(content, GROUPS) else []
    for _ in range(MOST_LEVELS):
        deeper = []
        for prefix, group in level:
            count += len(group)
            if count > MOST_ITEMS:
                raise Refused(f"holds over {MOST_ITEMS:,} items: save the `state_dict()` alone")
            for key, value in group.items():
                if not is_tensor(value) and not isinstance(value, GROUPS):
                    continue
                name = f"{prefix}{key}"
                letters += len(name)
                if letters > MOST_LETTERS:
                    raise Refused("has names of many megabytes: save the `state_dict()` alone")
                if not is_tensor(value):
                    deeper.append((f"{name}.", value))
                elif name in tensors:
                    raise Refused(f"has the tensor {shown(name)} twice: save the `state_dict()` alone")
                else:
                    tensors[name] = value
        level = deeper
    return tensors


def unwrap(tensors, prefix=None):
    """Returns the `Unwrapped` ViT among tensors by name.

    If no name is the patch embedding of a known format, all names are returned unchanged.

    Args:
        tensors: dict of tensors by name, see `flatten`. The tensors are not read.
        prefix: str, takes the tensors under this prefix. Defaults to the only one, or the preferred one,
            under which the patch embedding of a known format stands.

    Raises:
        Refused: there are several ViTs, there is none under the given prefix, or two names become equal.
    """
    named = {}
    for name in tensors:
        plain = WRAPPERS.sub("", name)
        if plain in named:
            raise Refused(f"has {shown(plain)} with and without a wrapper's name in it: save one alone")
        named[plain] = name
    prefixes = candidates(named)
    if prefix is not None:
        prefix = WRAPPERS.sub("", prefix)
        if prefix not in prefixes:
            others = quoted(prefixes) or "none"
            raise Refused(f"has no ViT under the prefix {shown(prefix)}, but under {others}")
    else:
        prefixes = preferred(prefixes)
        if len(prefixes) > 1:
            raise Refused(
                f"holds {len(prefixes)} ViTs, under the prefixes {quoted(prefixes)}: choose one by "
                "`weights=vit_tf.weights.open_weights(file, prefix=...)`, or save one alone"
            )
        prefix = prefixes[0] if prefixes else ""
    # The reported prefix is as in the file, including the names of wrappers.
    inside = {plain.removeprefix(prefix): name for plain, name in named.items() if plain.startswith(prefix)}
    left = tuple(name for plain, name in named.items() if not plain.startswith(prefix))
    shortest = min(inside, key=len, default="")
    written = inside[shortest].removesuffix(shortest) if shortest else ""
    return Unwrapped({short: tensors[name] for short, name in inside.items()}, written, left)


def candidates(names):
    """Returns the prefixes, in the names' order, under which a known patch embedding stands."""
    prefixes = {}
    for name in names:
        for ending, beside in PATCH_EMBEDDINGS.items():
            prefix = name.removesuffix(ending)
            if name.endswith(ending) and (not prefix or prefix.endswith(".")):
                if beside is None or prefix + beside in names:
                    prefixes[prefix] = None
                break
    return list(prefixes)


def preferred(prefixes):
    """Returns the prefixes, without those for which another prefix is preferred."""
    starts = {beginning for prefix in prefixes for beginning in beginnings(prefix)}

    def is_worse(prefix):
        return any(
            (parents, better) in starts
            for parents, key in beginnings(prefix)
            for better, worse in PREFERRED
            if key == worse
        )

    return [prefix for prefix in prefixes if not is_worse(prefix)]


def beginnings(prefix):
    """Returns (keys before, key) for each key in a prefix: keys are compared within one dictionary."""
    keys = prefix.split(".")[:-1]
    return [(tuple(keys[:i]), key) for i, key in enumerate(keys)]
