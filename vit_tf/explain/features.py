"""What the model knows: tokens as maps, their principal components, similarities of all kinds."""

import keras
import numpy as np

from vit_tf import layers as vit_layers
from vit_tf.checks import check_int
from vit_tf.explain.gradient import predict_eagerly
from vit_tf.explain.maps import to_numpy
from vit_tf.structure import PATCHES, ViTStructure


def forward_features(model, images, layers=None, norm=True, reshape=True):
    """Returns the tokens that leave chosen blocks, as maps for dense tasks.

    Equals timm's `forward_intermediates(norm=True)`.

    Args:
        model: a model of `build_vit`.
        images: array `(b, height, width, channels)` as the model takes them.
        layers: which blocks, by number (-1 is the last) or name; None takes all.
        norm: bool, whether the model's last norm is applied to each, where it normalises tokens.
        reshape: bool. True gives the patches as maps, False all tokens, the prefix first.

    Returns:
        Dict from the blocks' names to float32 arrays `(b, grid_h, grid_w, d)`, or `(b, p + n, d)`.

    Raises:
        ValueError: the model is not one of `build_vit`, the images have another shape, or
            there is no such block.
    """
    anatomy = ViTStructure(model)
    images = anatomy.check_images(images)
    names = anatomy.choose(layers)
    forward = keras.Model(model.input, [anatomy.blocks[name].output for name in names])
    found = {}
    for name, x in zip(names, keras.tree.flatten(predict_eagerly(forward, images))):
        if norm and any(layer.name == "norm" for layer in model.layers):
            x = model.get_layer("norm")(x)
        x = to_numpy(x)
        if reshape:
            x = x[:, anatomy.tokens(PATCHES)].reshape(len(x), *anatomy.grid_size, x.shape[-1])
        found[name] = x
    return found


def features_to_rgb(features, foreground=False):
    """Returns the three principal components of patch features as colours: what is alike has one colour.

    The components are of all images together, so that a colour means the same in each. Each goes from 0 to
    1 over the 2nd to 98th percentile.
    Reference: Oquab et al., "DINOv2" (https://arxiv.org/abs/2304.07193), figure 1.

    Args:
        features: array `(b, grid_h, grid_w, d)`, see `forward_features`.
        foreground: bool. True finds the foreground by the first component, as DINOv2's figure does, and
            gives the colours to it alone; the rest is black. Which side of the component is the
            foreground, the rim of the images tells: it is mostly background.

    Returns:
        float32 array `(b, grid_h, grid_w, 3)` in [0, 1].

    Raises:
        ValueError: the features have another shape, or fewer than four patches.
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
        rim = np.concatenate(
            [x.ravel() for x in (first[:, 0], first[:, -1], first[:, :, 0], first[:, :, -1])]
        )
        middle = (first.min() + first.max()) / 2
        inside = ((first < middle) if np.median(rim) > middle else (first > middle)).ravel()
        if inside.sum() < 4:
            inside[:] = True
    colours = np.zeros((len(rows), 3), "float32")
    x = principal_components(rows[inside], 3)
    low, high = np.percentile(x, (2, 98), axis=0)
    colours[inside] = np.clip((x - low) / np.maximum(high - low, 1e-12), 0, 1)
    return colours.reshape(*features.shape[:3], 3)


def principal_components(rows, count):
    """Returns the first principal components `(n, count)` of `(n, d)`, their larger tails positive."""
    rows = rows - rows.mean(axis=0)
    _, directions = np.linalg.eigh(rows.T @ rows)  # the largest is the last
    x = rows @ directions[:, : -count - 1 : -1]
    return x * np.where(np.abs(x.min(axis=0)) > x.max(axis=0), -1, 1)


def position_similarity(model):
    """Returns the cosine similarity of every patch's position embedding to every other's.

    Reference: ViT paper, figure 7, centre.

    Args:
        model: a model of `build_vit`.

    Returns:
        float32 array `(grid_h, grid_w, grid_h, grid_w)`: first whose, then to what.

    Raises:
        ValueError: the model is not one of `build_vit`.
    """
    anatomy = ViTStructure(model)
    table = to_numpy(anatomy.encoder.position_embedding)[0, anatomy.encoder.num_prefix_positions :]
    table = table / np.maximum(np.linalg.norm(table, axis=-1, keepdims=True), 1e-12)
    return (table @ table.T).reshape(*anatomy.grid_size, *anatomy.grid_size)


def patch_filters(model, count=28):
    """Returns the principal components of the filters that embed a patch, as pictures.

    Reference: ViT paper, figure 7, left. A stem of several convolutions has no such filters of whole
    patches: its first convolution's are taken. Those of a whitened stem are principal components
    already, of small patches of pixels: they are given as they are.

    Args:
        model: a model of `build_vit`.
        count: int, the most components.

    Returns:
        float32 array `(k, patch_h, patch_w, channels)`, each of length one. k is at most `count`, and
        less where the filters have fewer components.

    Raises:
        ValueError: the model is not one of `build_vit`, or `count` is not a positive int.
    """
    anatomy = ViTStructure(model)
    check_int("count", count, 1)
    kernel = first_kernel(anatomy)
    shape, filters = kernel.shape[:3], kernel.reshape(-1, kernel.shape[-1])
    if isinstance(anatomy.model.get_layer("patch_embedding"), vit_layers.WhitenedPatchEmbedding):
        directions = filters / np.maximum(np.linalg.norm(filters, axis=0), 1e-12)
    else:
        centred = filters - filters.mean(axis=1, keepdims=True)
        directions, sizes, _ = np.linalg.svd(centred, full_matrices=False)  # columns of length one
        directions = directions[:, sizes > 1e-6 * sizes[0]]
    return directions.T[:count].reshape(-1, *shape)


def first_kernel(anatomy):
    """Returns the first kernel that sees pixels, `(height, width, channels, filters)`."""
    stem = anatomy.model.get_layer("patch_embedding")
    if isinstance(stem, vit_layers.WhitenedPatchEmbedding):
        kernel = stem.whitening
    elif isinstance(stem, vit_layers.OverlapPatchEmbedding):
        kernel = stem.stages[0].kernel
    elif isinstance(stem, vit_layers.PatchEmbedding):
        kernel = stem.projection.kernel
    else:  # cut patches behind a Dense
        rows, columns = anatomy.patch_size
        return to_numpy(stem.kernel).reshape(rows, columns, -1, stem.kernel.shape[-1])
    return to_numpy(kernel)


def linear_cka(x, y):
    """Returns the linear centred kernel alignment of two sets of features of the same images, from 0 to 1.

    It is 1 where one is a rotated and scaled copy of the other. With far fewer images than features
    it is high for any two: then give it the patches of all images as rows, `(b * n, d)`.
    Reference: Kornblith et al., "Similarity of Neural Network Representations Revisited"
    (https://arxiv.org/abs/1905.00414), section 3.

    Args:
        x, y: arrays `(b, ...)`, flattened to vectors; or dicts of such, as from `forward_features`.

    Returns:
        float; for dicts a float array `(len(x), len(y))`.

    Raises:
        ValueError: the numbers of images differ, or there are fewer than two.
    """
    sides = [list(z.values()) if isinstance(z, dict) else [z] for z in (x, y)]
    check_same_images(sides[0] + sides[1])
    widest = max(np.size(z) // len(z) for z in sides[0] + sides[1])
    reduced = [[centred(z, widest) for z in side] for side in (sides[:1] if y is x else sides)]
    first, second = reduced[0], reduced[-1]
    inner = inner_of_grams if len(sides[0][0]) < widest else inner_of_features
    lengths = [[inner(z, z) ** 0.5 for z in side] for side in (first, second)]
    found = np.array([[inner(a, b) for b in second] for a in first])
    norms = np.outer(*lengths)
    found = np.divide(found, norms, out=np.zeros_like(found), where=norms > 0)
    return found if isinstance(x, dict) or isinstance(y, dict) else float(found[0, 0])


def check_same_images(features):
    counts = {len(x) for x in features}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(
            f"CKA compares features of the same images, two or more of them, got {sorted(counts)}"
        )


def centred(features, widest):
    """Returns centred features `(b, d)`, or their inner products `(b, b)` where these are smaller."""
    rows = np.asarray(features, "float64").reshape(len(features), -1)
    rows = rows - rows.mean(axis=0)
    return rows @ rows.T if len(rows) < widest else rows


def inner_of_features(a, b):
    return np.sum((a.T @ b) ** 2)


def inner_of_grams(a, b):
    return np.sum(a * b)
