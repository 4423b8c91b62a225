"""The convolutional networks of hybrids: their names in timm, and which network a checkpoint has.

Reference: timm 1.0.31, `models/vision_transformer_hybrid.py`, `models/resnetv2.py` and `models/resnet.py`.
"""

import re

from vit_tf.checks import require

BACKBONE = "patch_embed.backbone."
STAGE, LAYER = (rf"patch_embedding/{word}_(\d+)_block_(\d+)/" for word in ("stage", "layer"))
# Regular expressions for paths of layers, and timm's names for them. A residual network of timm has no "stem"
# if it has no stages; ours is called "root" then.
NAMES = {
    "patch_embedding/stem/convolution": f"{BACKBONE}stem.conv",
    "patch_embedding/stem/norm": f"{BACKBONE}stem.norm",
    "patch_embedding/root/convolution": f"{BACKBONE}conv",
    "patch_embedding/root/norm": f"{BACKBONE}norm",
    rf"{STAGE}conv_(\d)/convolution": rf"{BACKBONE}stages.\1.blocks.\2.conv\3",
    rf"{STAGE}conv_(\d)/norm": rf"{BACKBONE}stages.\1.blocks.\2.norm\3",
    rf"{STAGE}shortcut/convolution": rf"{BACKBONE}stages.\1.blocks.\2.downsample.conv",
    rf"{STAGE}shortcut/norm": rf"{BACKBONE}stages.\1.blocks.\2.downsample.norm",
    # ResNet-D: a sequence of convolutions, norms and activations; the third norm is outside of it.
    "patch_embedding/stem_0/convolution": f"{BACKBONE}conv1.0",
    "patch_embedding/stem_0/norm": f"{BACKBONE}conv1.1",
    "patch_embedding/stem_1/convolution": f"{BACKBONE}conv1.3",
    "patch_embedding/stem_1/norm": f"{BACKBONE}conv1.4",
    "patch_embedding/stem_2/convolution": f"{BACKBONE}conv1.6",
    "patch_embedding/stem_2/norm": f"{BACKBONE}bn1",
    rf"{LAYER}conv_(\d)/convolution": rf"{BACKBONE}layer\1.\2.conv\3",
    rf"{LAYER}conv_(\d)/norm": rf"{BACKBONE}layer\1.\2.bn\3",
    rf"{LAYER}shortcut/convolution": rf"{BACKBONE}layer\1.\2.downsample.1",
    rf"{LAYER}shortcut/norm": rf"{BACKBONE}layer\1.\2.downsample.2",
    # MobileCLIP
    r"patch_embedding/conv_(\d)/convolution": rf"{BACKBONE}\1.conv",
    r"patch_embedding/conv_(\d)/norm": rf"{BACKBONE}\1.bn",
    r"patch_embedding/conv_(\d)": rf"{BACKBONE}\1.conv",
}
MOBILECLIP = f"{BACKBONE}0.conv.weight"
FIRST_KERNELS = (
    f"{BACKBONE}stem.conv.weight",
    f"{BACKBONE}conv.weight",
    f"{BACKBONE}conv1.0.weight",
    MOBILECLIP,
)
STATISTICS = {"moving_mean": "running_mean", "moving_variance": "running_var"}  # of batch normalisation
UNUSED = ".num_batches_tracked"  # a counter of PyTorch's batch normalisation
BLOCKS = {
    "ResNetV2": re.compile(re.escape(BACKBONE) + r"stages\.(\d+)\.blocks\.(\d+)\."),
    "ResNet-D": re.compile(re.escape(BACKBONE) + r"layer(\d+)\.(\d+)\."),
}


def check_backbone(source, tensors, model, mappings):
    """Raises a ValueError if the stems of a checkpoint and a model have different networks."""
    theirs, ours = describe(tensors), describe(mappings)
    advice = "name the variant of the weights"
    require(theirs == ours, f"{source!r} has {theirs}, and {model!r} {ours}: {advice}")


def describe(names):
    """Returns the stem that names of timm belong to, as text."""
    for kind, pattern in BLOCKS.items():
        blocks = {match.groups() for match in map(pattern.match, names) if match}
        if blocks:
            stages = sorted({int(stage) for stage, _ in blocks})
            counts = [sum(int(number) == stage for number, _ in blocks) for stage in stages]
            return f"a {kind} stem of {' + '.join(map(str, counts))} blocks"
    if any(name.startswith((f"{BACKBONE}conv.", f"{BACKBONE}stem.")) for name in names):
        return "a ResNetV2 stem without blocks"
    if MOBILECLIP in names:
        return "MobileCLIP's convolutional stem"
    return "a stem without a convolutional network"
