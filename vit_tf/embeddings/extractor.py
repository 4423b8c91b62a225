"""`features`: a model as an extractor of features: vectors of images, and maps of their patches.

Shapes: n images, b images of a batch, d width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_tf.checks import pair, require
from vit_tf.deploy.manifest import exported_folder
from vit_tf.deploy.predictor import Predictor
from vit_tf.deploy.runtimes import choose_keras
from vit_tf.embeddings.neighbours import normalized

if TYPE_CHECKING:
    import keras

    from vit_tf.classifier import Classifier

PROBE_SIZE = (96, 128)  # height, width


class FeatureExtractor:
    """Features of images by a model, with the preprocessing of its weights.

    Images are read and resized in threads while the model computes. Several threads may use an extractor at
    the same time.

    Args:
        source: a source of `vit_tf.load`; a `Classifier`; a model of `build_vit`, whose preprocessing is that
            of its name; or a folder that `vit_tf.export` wrote of a model without a head.
        pooling: how the tokens after the last block and norm become one vector: "token" is the class token,
            "avg" the mean of the patch tokens, "gem" their generalised mean with power 3, and "cls+avg" the
            first two, one after the other (2 * d values). None takes the features that the head of the model
            reads, such as the learned attention pooling of SigLIP. An exported folder has no other.
        normalize: bool, whether `embed` and `stream` divide each vector by its L2 norm.
        image_size: int or (height, width) in pixels: what images are resized to. Defaults to the model's own.
        runtime, batch_size, threads, variant: see `vit_tf.Predictor`.

    Raises:
        ValueError: the source cannot be opened, the pooling is unknown or reads a class token that the model
            does not have, or an exported folder has a head or should have another pooling or image size.

    Attributes:
        pooling, normalize: as given.
        predictor: the `Predictor` that computes the vectors.
        preprocessing: the `Preprocessing` of the weights.

    Example:
        extractor = vit_tf.features("hf:timm/vit_small_patch14_dinov2.lvd142m", "cls+avg", normalize=True)
        vectors = extractor.embed("photos")  # float32 (n, 768)
        similarities = vectors @ vectors.T
    """

    def __init__(
        self,
        source: str | PathLike | Classifier | keras.Model,
        pooling: str | None = None,
        *,
        normalize: bool = False,
        image_size: int | tuple[int, int] | None = None,
        runtime: str = "auto",
        batch_size: int = 8,
        threads: int | None = None,
        variant: str | None = None,
    ):
        self.pooling, self.normalize = pooling, normalize
        options: dict[str, Any] = dict(runtime=runtime, batch_size=batch_size, threads=threads)
        self._structure: Any = None
        self._patches: Predictor | None = None
        if exported_folder(source) is not None:
            self.predictor = Predictor(source, **options)
            self.preprocessing = self.predictor.preprocessing
            problem = "an exported folder has the pooling and the image size that were exported"
            size = self.preprocessing.image_size
            is_own = pooling is None and (image_size is None or pair(image_size, "image_size") == size)
            require(is_own, f"{problem}: leave both out, or give the weights themselves")
            problem = "the exported model gives classes, not features"
            hint = "give the weights themselves, or export a model of `num_classes=0`"
            require(not self.predictor.has_head, f"{problem}: {hint}")
        else:
            choose_keras(source, runtime)
            from vit_tf.embeddings.token_features import vector_model
            from vit_tf.structure import ViTStructure

            classifier = opened(source, variant, image_size)
            self._structure = ViTStructure(classifier.model)
            self._options, self.preprocessing = options, classifier.preprocessing
            self.predictor = self._predictor(vector_model(self._structure, pooling))

    @property
    def num_features(self) -> int:
        """The width d of a vector."""
        return self.predictor.num_outputs

    @property
    def variant(self) -> str:
        """The name of the model."""
        manifest = self.predictor.manifest
        return self._structure.model.name if manifest is None else manifest.variant

    def embed(self, images: Any) -> np.ndarray:
        """Returns one vector per image, float32 (n, d).

        Args:
            images: one image or many: a path, bytes, an open file, a Pillow image or an array (h, w, c), see
                `vit_tf.preprocessing.Preprocessing`; the path of a folder, for all images below it; an array
                (b, h, w, c); or a list, a generator or another iterable of these.

        Raises:
            ValueError: an image cannot be read, or a folder has no images.
            OSError: a file does not exist.
        """
        vectors = self.predictor.outputs(images)
        return normalized(vectors) if self.normalize else vectors

    def stream(
        self, images: Any, on_error: Callable[[Any, Exception], Any] | None = None
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """Yields `(image, vector (d,))` in the order of the images, while later images are read.

        Args:
            images: as for `embed`; also a generator without an end.
            on_error: function that is called with `(image, error)` for each image that cannot be read; the
                image is left out. None raises the error, after the results of the images before.
        """
        for batch, vectors in self.batches(images, on_error):
            yield from zip(batch, vectors)

    def batches(
        self, images: Any, on_error: Callable[[Any, Exception], Any] | None = None
    ) -> Iterator[tuple[list[Any], np.ndarray]]:
        """Yields `([images], vectors (b, d))` in the order of the images, see `stream`."""
        for batch, vectors in self.predictor.batches(images, on_error):
            yield batch, normalized(vectors) if self.normalize else vectors

    def maps(self, images: Any) -> np.ndarray:
        """Returns the patch tokens as maps, float32 (n, rows, columns, d): one vector per patch.

        The tokens are those after the last block, and after the final norm if the model has one.

        Args:
            images: as for `embed`.

        Raises:
            ValueError: as for `embed`; or the model is an exported folder.
        """
        problem = "an exported folder gives vectors alone: give the weights themselves for maps"
        require(self._structure is not None, problem)
        if self._patches is None:
            from vit_tf.embeddings.token_features import patch_model

            self._patches = self._predictor(patch_model(self._structure))
        tokens, (rows, columns) = self._patches.outputs(images), self._structure.grid_size
        return tokens.reshape(len(tokens), rows, columns, self._patches.num_outputs // (rows * columns))

    def probe(self) -> np.ndarray:
        """Returns the vector of an image that is always the same, float32 (d,), not normalised.

        Weights, pooling and preprocessing that give the same vector are the same for all other images, too.
        """
        return self.predictor.outputs(probe_image())[0]

    def _predictor(self, model):
        from vit_tf.classifier import Classifier

        return Predictor(Classifier(model, self.preprocessing, None), **self._options)


def features(
    model_or_source: str | PathLike | Classifier | keras.Model, pooling: str | None = None, **options: Any
) -> FeatureExtractor:
    """Returns the `FeatureExtractor` of a model or of weights.

    Args:
        model_or_source: a source of `vit_tf.load`, a `Classifier`, a model of `build_vit`, or a folder that
            `vit_tf.export` wrote of a model without a head.
        pooling, **options: see `FeatureExtractor`: `normalize`, `image_size`, `runtime`, `batch_size`,
            `threads` and `variant`.

    Raises:
        ValueError: see `FeatureExtractor`.
    """
    return FeatureExtractor(model_or_source, pooling, **options)


def opened(source, variant, image_size):
    """Returns the `Classifier` of a source, for an image size or, if this is None, for its own."""
    from vit_tf.classifier import load, open_classifier
    from vit_tf.weights import resize_model

    if isinstance(source, (str, PathLike)):
        return load(source, variant, headless=True, image_size=image_size)
    classifier = open_classifier(source, variant)
    if image_size is None:
        return classifier
    preprocessing = replace(classifier.preprocessing, image_size=image_size)
    if preprocessing.image_size == classifier.model.input_shape[1:3]:
        return replace(classifier, preprocessing=preprocessing)
    model = resize_model(classifier.model, preprocessing.image_size)
    return replace(classifier, model=model, preprocessing=preprocessing)


def probe_image():
    """Returns the image of `FeatureExtractor.probe`, uint8 (h, w, 3): gradients, waves and edges."""
    y, x = np.mgrid[: PROBE_SIZE[0], : PROBE_SIZE[1]]
    waves = [
        127 + 60 * np.sin(x / 9 + y / 23) + 60 * (y > 40),
        2 * x,
        80 + y + 60 * ((x // 16 + y // 16) % 2),
    ]
    return np.clip(np.stack(waves, axis=-1), 0, 255).astype("uint8")
