"""Visualisations as arrays: features as colours, patch filters, similarities of positions."""

from typing import Any

import keras
import numpy as np

from vit_tf import layers
from vit_tf.block_features import to_numpy
from vit_tf.checks import check_int
from vit_tf.structure import HYBRID_STEMS, ViTStructure


def features_to_rgb(features: Any, foreground: bool = False) -> np.ndarray:
    """Returns the first three principal components of patch features as colours.

    Similar patches have similar colours. The components are computed from all images together, so that a
    colour means the same in each image. Each is scaled so that its 2nd percentile is 0 and its 98th is 1.
    Reference: Oquab et al., "DINOv2" (https://arxiv.org/abs/2304.07193), figure 1.

    Args:
        features: array `(b, grid_h, grid_w, d)`, see `forward_features`.
        foreground: bool. True separates the foreground by the first component, as DINOv2's figure does,
            and colours only the foreground; the rest is black. The sign of the component is chosen so that
            the border of the images is background.

    Returns:
        float32 array `(b, grid_h, grid_w, 3)` in [0, 1].

    Raises:
        ValueError: the features have another shape, fewer than four patches, or fewer than three channels.
    """
    features = np.asarray(features, "float32")
    if features.ndim != 4 or np.prod(features.shape[:3]) < 4 or features.shape[-1] < 3:
        raise ValueError(
            f"`features` must be (b, grid_h, grid_w, d) with four patches and three channels or more, got "
            f"{features.shape}: `forward_features` gives them"
        )
    rows = features.reshape(-1, features.shape[-1])
    inside = np.ones(len(rows), bool)
    if foreground:
        first = principal_components(rows, 1)[:, 0].reshape(features.shape[:3])
        sides = (first[:, 0], first[:, -1], first[:, :, 0], first[:, :, -1])
        border = np.concatenate([x.ravel() for x in sides])
        middle = (first.min() + first.max()) / 2
        inside = ((first < middle) if np.median(border) > middle else (first > middle)).ravel()
        if inside.sum() < 4:
            inside[:] = True
    colours = np.zeros((len(rows), 3), "float32")
    x = principal_components(rows[inside], 3)
    low, high = np.percentile(x, (2, 98), axis=0)
    colours[inside] = np.clip((x - low) / np.maximum(high - low, 1e-12), 0, 1)
    return colours.reshape(*features.shape[:3], 3)


def principal_components(rows, count):
    """Returns the first principal components `(n, count)` of `(n, d)`, each with the larger tail positive."""
    rows = rows - rows.mean(axis=0)
    _, directions = np.linalg.eigh(rows.T @ rows)  # the largest is the last
    x = rows @ directions[:, : -count - 1 : -1]
    return x * np.where(np.abs(x.min(axis=0)) > x.max(axis=0), -1, 1)


def position_similarity(model: keras.Model) -> np.ndarray:
    """Returns the cosine similarity of every patch's position embedding to every other.

    Reference: ViT paper, figure 7, centre.

    Args:
        model: a model of `build_vit`.

    Returns:
        float32 array `(grid_h, grid_w, grid_h, grid_w)`: the row and column of one patch, then of the other.

    Raises:
        ValueError: `model` is not a model of `build_vit`, or has no position table.
    """
    structure = ViTStructure(model)
    encoder = structure.patch_encoder
    if encoder is None or not encoder.position_table:
        raise ValueError(f"{model.name!r} has no position table, so there are no positions to compare")
    table = to_numpy(encoder.position_embedding)[0, encoder.num_prefix_positions :]
    table = table / np.maximum(np.linalg.norm(table, axis=-1, keepdims=True), 1e-12)
    return (table @ table.T).reshape(*encoder.position_grid, *encoder.position_grid)


def patch_filters(model: keras.Model, count: int = 28) -> np.ndarray:
    """Returns the principal components of the filters that embed a patch, as images.

    A stem of several convolutions has no filters of whole patches: the filters of its first convolution are
    used. The filters of a whitened stem are principal components of small patches already, and are returned
    without a further analysis.
    Reference: ViT paper, figure 7, left.

    Args:
        model: a model of `build_vit`.
        count: int, the maximum number of components.

    Returns:
        float32 array `(k, patch_h, patch_w, channels)`, each component of length one. k is at most `count`,
        and smaller where the filters have fewer components.

    Raises:
        ValueError: `model` is not a model of `build_vit`, or `count` is not a positive int.
    """
    structure = ViTStructure(model)
    check_int("count", count, 1)
    kernel = first_kernel(structure)
    shape, filters = kernel.shape[:3], kernel.reshape(-1, kernel.shape[-1])
    if isinstance(structure.stem, layers.WhitenedPatchEmbedding):
        directions = filters / np.maximum(np.linalg.norm(filters, axis=0), 1e-12)
    else:
        centred = filters - filters.mean(axis=1, keepdims=True)
        directions, sizes, _ = np.linalg.svd(centred, full_matrices=False)  # columns of length one
        directions = directions[:, sizes > 1e-6 * sizes[0]]
    return directions.T[:count].reshape(-1, *shape)


def first_kernel(structure):
    """Returns the first kernel that is applied to pixels, `(height, width, channels, filters)`."""
    stem = structure.stem
    if isinstance(stem, layers.WhitenedPatchEmbedding):
        kernel = stem.whitening
    elif isinstance(stem, layers.OverlapPatchEmbedding):
        kernel = stem.stages[0].kernel
    elif isinstance(stem, layers.PatchEmbedding):
        kernel = stem.projection.kernel
    elif isinstance(stem, HYBRID_STEMS):
        kernel = stem.first[0].convolution.kernel
    else:  # a Dense after `Patches`
        kernel = structure.patch_embedding.kernel
        return to_numpy(kernel).reshape(*stem.patch_size, -1, kernel.shape[-1])
    return to_numpy(kernel)
