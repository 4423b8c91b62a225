"""Fits the tensors of a checkpoint to a model: input channels, flat kernels, patch sizes.

Position tables are fitted in `vit_tf.weights.positions`.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from vit_tf.checks import check_choice, require
from vit_tf.interpolation import METHODS
from vit_tf.variants import resampling
from vit_tf.weights import resample
from vit_tf.weights.formats import backbones, vit_pytorch

RGB = 3
PATCH_KERNEL = "patch_embed.proj.weight"
FIRST_KERNELS = (PATCH_KERNEL, "patch_embed.stages.0.weight", *backbones.FIRST_KERNELS)
# How each format's own library resamples a position table, if it differs from timm. For models with
# registers, transformers and DINOv2's authors do as timm.
OWN_RESAMPLING = {
    "google": dict(method="bilinear", antialias=False),
    "huggingface": dict(method="bicubic", antialias=False),
    "huggingface_vision": dict(method="bicubic", antialias=False),
    "keras_hub": dict(method="bicubic", antialias=False),
    "siglip2": dict(method="bilinear", antialias=True),
    "torchvision": dict(method="bicubic", antialias=False, align_corners=True),
    "dinov2": dict(method="bicubic", antialias=False, offset=0.1),
}
LIBRARIES = {
    **dict.fromkeys(("huggingface", "huggingface_vision", "siglip2"), "transformers"),
    "torchvision": "torchvision",
    "keras_hub": "transformers",
    "dinov2": "DINOv2's makers",
}


@dataclass(frozen=True)
class Sampling:
    """How position tables and patch kernels are resampled: options of `vit_tf.interpolation`."""

    positions: dict
    kernels: dict
    reason: str  # why these options, for the report

    def describe(self, options):
        offset = f" and an offset of {options['offset']}" if options.get("offset") else ""
        antialias = "with" if options["antialias"] else "without"
        return f"{options['method']} {antialias} antialias{offset}, {self.reason}"


def sampling_options(name, weights, method, antialias):
    """Returns the `Sampling`: the user's options, by default those of the format's own library."""
    check_choice("method", method, METHODS, optional=True)
    options = {} if method is None else {"method": method, "antialias": True}
    square = {"square": True} if weights.format == "radio" else {}
    if antialias is not None:
        options["antialias"] = antialias
    if method is not None:
        return Sampling(options | square, options, "as asked for")
    positions = resampling(name) | square
    kernels = {key: positions[key] for key in ("method", "antialias")}
    if weights.format not in LIBRARIES or "reg_token" not in weights.tensors:
        positions |= OWN_RESAMPLING.get(weights.format, {})
    if weights.format == "google":
        kernels = OWN_RESAMPLING["google"]
    reason = "as asked for" if options else f"as {LIBRARIES.get(weights.format, 'timm')} does"
    return Sampling(positions | options, kernels | options, reason)


def fit_patches(tensors, mappings, sampling, report):
    """Returns the tensors with a patch kernel of the model's patch size."""
    kernel, mapping = tensors.get(PATCH_KERNEL), mappings.get(PATCH_KERNEL)  # overlapping stems have none
    if kernel is None or mapping is None or len(kernel.shape) != 4 or 0 in kernel.shape:
        return tensors
    old, new = kernel.shape[2:], mapping.shape[2:]
    if old == new:
        return tensors
    sizes = f"{report.source!r} has patches of {old} and the model of {new}"
    has_norm = "patch_embed.norm_in.weight" in tensors
    require(not has_norm, f"{sizes}: with a norm of the cut pixels they cannot be resampled")
    report.resampled.append(f"{PATCH_KERNEL}: {old} to {new}, {sampling.describe(sampling.kernels)}")

    def resampled(x):
        x = resample.resample_patch_kernel(x.transpose(2, 3, 1, 0), new, **sampling.kernels)
        return x.transpose(3, 2, 0, 1)

    return {**tensors, PATCH_KERNEL: kernel.map(resampled, (*kernel.shape[:2], *new))}


def unfold_kernels(tensors, mappings):
    """Returns the tensors with a four-dimensional patch kernel, if the source has a flat one."""
    tensors = dict(tensors)
    for name in (vit_pytorch.FLAT, PATCH_KERNEL):  # the latter is flat in timm's first checkpoints
        if name in tensors and PATCH_KERNEL in mappings:
            shape, pixels_first = mappings[PATCH_KERNEL].shape, name == vit_pytorch.FLAT
            tensors[PATCH_KERNEL] = unfold_patches(tensors.pop(name), shape, pixels_first)
    return tensors


def unfold_patches(flat, shape, pixels_first):
    """Returns a flat kernel `(out, values)` as `(out, channels, rows, columns)`; unchanged if no size fits.

    The patches have the model's `shape`, else are squares of as many channels, else squares of RGB.
    """
    if len(flat.shape) != 2 or 0 in flat.shape:
        return flat
    square = ((channels, math.isqrt(flat.shape[1] // channels)) for channels in (shape[1], RGB))
    for channels, rows, columns in (shape[1:], *((channels, side, side) for channels, side in square)):
        if channels * rows * columns == flat.shape[1]:
            break
    else:
        return flat
    if pixels_first:
        return flat.reshape(-1, rows, columns, channels).transpose(0, 3, 1, 2)
    return flat.reshape(-1, channels, rows, columns)


def adapt_channels(kernel, channels):
    """Returns a kernel `(out, channels, rows, columns)` from one of RGB, `(out, 3, rows, columns)`.

    For one channel, the result is the sum over the three channels, which gives the same output for a grey
    image. For more channels, the three are repeated in turn and scaled by 3 / channels.
    Reference: timm 1.0.31, `adapt_input_conv` in `models/_manipulate.py`.
    """
    if channels == 1:
        return kernel.sum(axis=1, keepdims=True)
    repeated = np.take(kernel, np.arange(channels) % RGB, axis=1)
    return repeated * np.float32(RGB / channels)


def fit_channels(tensors, mappings, report):
    """Returns the tensors with the first kernel adapted to the model's channels, if the source has RGB."""
    tensors = dict(tensors)
    for name in FIRST_KERNELS:
        kernel, mapping = tensors.get(name), mappings.get(name)
        if kernel is None or mapping is None or len(kernel.shape) != 4 or kernel.shape[1] != RGB:
            continue
        channels = mapping.shape[1]
        if channels != RGB:
            shape = (kernel.shape[0], channels, *kernel.shape[2:])
            tensors[name] = kernel.map(partial(adapt_channels, channels=channels), shape)
            report.adapted.append(f"{name}: {RGB} input channels to {channels}")
    return tensors
