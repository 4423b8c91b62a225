"""The agreement of an exported model with the Keras model: both run on the same real images.

Shapes: n images, k outputs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_tf.checks import require
from vit_tf.deploy.manifest import Manifest
from vit_tf.deploy.runtimes import open_runtime

# The largest difference that passes, relative to the largest output of the Keras model.
BOUNDS = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
ENCODED_BOUND = 5e-2  # resizing in the graph differs from Pillow's by up to 1/255 per pixel
BATCH_SIZES = (16, 5)  # the last batch of 5 is not full


def compare(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> dict[str, float]:
    """Returns how far outputs are from those that are expected.

    Args:
        outputs, expected: arrays (n, k), one per output of the model, float.

    Returns:
        A dict: "largest_difference", of all outputs, relative to the largest expected absolute value;
        "top1_agreement", the fraction of images for which the first output has its maximum at the same place.

    Raises:
        ValueError: the number or the shapes of the outputs differ, or an output is not finite.
    """
    shapes, wanted = ([np.shape(x) for x in arrays] for arrays in (outputs, expected))
    require(shapes == wanted, f"the exported model's outputs have the shapes {shapes}, expected {wanted}")
    is_finite = all(np.isfinite(x).all() for x in outputs)
    require(is_finite, "the exported model's outputs have NaN or infinite values")
    largest = max(np.abs(x).max(initial=0) for x in expected)
    difference = max(np.abs(np.asarray(x, "float64") - y).max(initial=0) for x, y in zip(outputs, expected))
    same = np.argmax(outputs[0], axis=-1) == np.argmax(expected[0], axis=-1)
    return {
        "largest_difference": float(difference / max(largest, np.finfo("float32").tiny)),
        "top1_agreement": float(np.mean(same)),
    }


def run_batches(run: Callable[[Any], Any], images: Any, batch_size: int) -> tuple[np.ndarray, ...]:
    """Returns the outputs (n, k) of `run`, a function from a batch to a tuple of arrays, for all images."""
    batches = [run(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    return tuple(np.concatenate(parts) for parts in zip(*batches))


def check_agreement(
    folder: str | Path, manifest: Manifest, images: Any, expected: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Runs the model of an exported folder with its own runtime, and compares it with the Keras model.

    Args:
        folder: the exported folder.
        manifest: its `Manifest`.
        images: the inputs of the exported graph: an array (n, h, w, 3), or the bytes of n files as vectors.
        expected: the outputs of the Keras model for the same images, arrays (n, k).

    Returns:
        A dict for `Manifest.agreement`: the results of `compare`, "bound", "images", "batch_sizes" and
        "runtime".

    Raises:
        ValueError: the runtime cannot read the folder, or the difference exceeds the bound.
    """
    runtime = open_runtime(folder, manifest)
    results = [compare(run_batches(runtime.run, images, size), expected) for size in BATCH_SIZES]
    agreement: dict[str, Any] = {
        "largest_difference": max(result["largest_difference"] for result in results),
        "top1_agreement": min(result["top1_agreement"] for result in results),
        "bound": max(BOUNDS[manifest.precision], ENCODED_BOUND * (manifest.input_kind == "encoded")),
        "images": len(images),
        "batch_sizes": list(BATCH_SIZES),
        "runtime": runtime.name,
    }
    is_close = agreement["largest_difference"] <= agreement["bound"]
    require(is_close, f"the exported model does not agree with the Keras model: {summary(agreement)}")
    return agreement


def check_encoded(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> dict[str, float]:
    """Returns the results of `compare` for the signature that takes encoded images.

    Raises:
        ValueError: the difference exceeds `ENCODED_BOUND`.
    """
    agreement = {**compare(outputs, expected), "bound": ENCODED_BOUND, "images": len(expected[0])}
    difference = agreement["largest_difference"]
    problem = (
        f"the outputs for encoded images differ by {difference:.1e} of the largest (bound {ENCODED_BOUND})"
    )
    require(difference <= ENCODED_BOUND, f"{problem}: export without preprocessing, and preprocess outside")
    return agreement


def summary(agreement: dict[str, Any]) -> str:
    """Returns the results of `check_agreement` as a line of text."""
    sizes = " and ".join(map(str, agreement["batch_sizes"]))
    return (
        f"largest difference {agreement['largest_difference']:.1e} of the largest output "
        f"(bound {agreement['bound']:.0e}), top-1 agreement {agreement['top1_agreement']:.1%} "
        f"({agreement['images']} images in batches of {sizes}, by {agreement['runtime']})"
    )
