"""`Runtime`: what every runtime has in common, from images to checked float32 outputs."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_tf.checks import quoted, require, shown

DTYPES = {"normalized": "float32", "uint8": "uint8"}  # by `input_kind`


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The input and the outputs of a model: the fields of a `Manifest` that a runtime needs."""

    input_kind: str
    image_size: tuple[int, int]
    num_outputs: int
    output_names: tuple[str, ...]
    image_sizes: tuple[tuple[int, int], ...] | None = None  # if there are several


class Runtime:
    """A model that is ready to run. Several threads may call `run` at the same time.

    Args:
        signature: a `Manifest` or a `Signature`.

    Attributes:
        name: the name of the runtime in `RUNTIMES`.
    """

    name = ""

    def __init__(self, signature: Any):
        self.signature = signature

    def run(self, images: Any) -> tuple[np.ndarray, ...]:
        """Returns the outputs for a batch of images.

        Args:
            images: array (b, h, w, 3) of the model's image size: float32 after `Preprocessing` if
                `input_kind` is "normalized", uint8 pixels if it is "uint8". If it is "encoded": a list of b
                vectors of uint8, the bytes of JPEG or PNG files.

        Returns:
            A tuple of float32 arrays (b, num_outputs), in the order of `output_names`.

        Raises:
            ValueError: the images have another shape or type, or the outputs are not those that vit_tf.json
                describes.
        """
        self.check_images(images)
        outputs = self.compute(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images)
        shape = (len(images), self.signature.num_outputs)
        for name, output in zip(self.signature.output_names, outputs):
            found = f"the output {name!r} has the shape {np.shape(output)}"
            require(np.shape(output) == shape, f"{found}, expected {shape}: vit_tf.json is of another model")
        return tuple(np.asarray(output, "float32") for output in outputs)

    def check_images(self, images: Any) -> None:
        """Raises a ValueError for images of another shape or type than the model's."""
        if self.signature.input_kind == "encoded":
            is_valid = all(getattr(x, "dtype", None) == "uint8" and x.ndim == 1 for x in images)
            require(
                is_valid and len(images), "the model takes a list of vectors of uint8, the bytes of files"
            )
            return
        sizes = self.signature.image_sizes or [self.signature.image_size]
        shapes = [(*size, 3) for size in sizes]
        dtype = DTYPES[self.signature.input_kind]
        is_valid = isinstance(images, np.ndarray) and images.dtype == dtype and images.shape[1:] in shapes
        got = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else shown(images)
        expected = " or ".join(f"('b', *{shape})" for shape in shapes)
        require(is_valid and len(images), f"the model takes {dtype} images {expected}, got {got}")

    def compute(self, images: Any) -> list[Any]:
        """Returns one array per name in `output_names`. A subclass implements it for several threads."""
        raise NotImplementedError


class FileRuntime(Runtime):
    """A runtime of its own kind of file: see `Runtime`.

    Args:
        path: of the main file of an exported folder.
        manifest: its `Manifest`.
        threads: int, the number of threads that compute.

    Raises:
        ValueError: the graph has not the input and the outputs of the manifest.
    """

    def __init__(self, path: Path, manifest: Any, threads: int):
        super().__init__(manifest)
        inputs, outputs = self.open(path, threads)
        self.require_names(inputs, outputs)

    def open(self, path: Path, threads: int) -> tuple[Iterable[str], Iterable[str]]:
        """Opens the file; returns the names of the graph's inputs and outputs. A subclass implements it."""
        raise NotImplementedError

    def require_names(self, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        """Raises a ValueError unless the graph has the input and the outputs of the signature."""
        for kind, names, existing in (
            ("input", [self.signature.input_name], list(inputs)),
            ("outputs", self.signature.output_names, list(outputs)),
        ):
            missing = [name for name in names if name not in existing]
            found = f"its {kind} are {quoted(existing)}, and vit_tf.json names {quoted(missing)}"
            require(not missing, f"{found}: vit_tf.json is of another model")
