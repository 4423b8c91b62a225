"""Adapts RGB patch kernels to models with another number of input channels."""

import numpy as np

RGB = 3
FIRST = ("patch_embed.proj.weight", "patch_embed.stages.0.weight")


def adapt_channels(kernel, channels):
    """Returns a kernel `(out, 3, rows, columns)` for another number of input channels.

    For one channel, the result is the sum over the three channels, which gives the same output for a grey
    image. For more channels, the three are repeated in turn and scaled by 3 / channels.
    Reference: timm 1.0.31, `adapt_input_conv` in `models/_manipulate.py`.

    Args:
        kernel: float32 array.
        channels: int.

    Returns:
        float32 array `(out, channels, rows, columns)`.
    """
    if channels == 1:
        return kernel.sum(axis=1, keepdims=True)
    repeated = np.take(kernel, np.arange(channels) % RGB, axis=1)
    return repeated * np.float32(RGB / channels)


def fit_channels(tensors, entries, report):
    """Returns the tensors with the first kernel adapted to the model's channels, if the source has RGB."""
    tensors = dict(tensors)
    for name in FIRST:
        kernel, entry = tensors.get(name), entries.get(name)
        if kernel is None or entry is None or len(kernel.shape) != 4 or kernel.shape[1] != RGB:
            continue
        channels = entry.shape[1]
        if channels != RGB:
            shape = (kernel.shape[0], channels, *kernel.shape[2:])
            tensors[name] = kernel.map(lambda x, channels=channels: adapt_channels(x, channels), shape)
            report.adapted.append(f"{name}: {RGB} input channels to {channels}")
    return tensors
