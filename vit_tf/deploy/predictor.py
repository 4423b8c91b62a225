"""`Predictor`: predictions by any runtime, with the interface of a `Classifier`.

With an exported folder for ONNX Runtime, OpenVINO or LiteRT it imports neither Keras nor TensorFlow.
Shapes: n images, b images of a batch, k outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_tf.checks import check_choice, check_int, check_valid, pair, require, shown
from vit_tf.cores import num_cores
from vit_tf.deploy.inputs import each_image, png_bytes
from vit_tf.deploy.manifest import Manifest, exported_folder, read_manifest
from vit_tf.deploy.pipeline import map_ahead, thread_pool
from vit_tf.deploy.runtimes.opening import AUTO, RUNTIMES, choose_keras, open_runtime
from vit_tf.labels import REGRESSION, check_thresholds
from vit_tf.predictions import check_outputs, decode_outputs, probabilities, remaining_activation

if TYPE_CHECKING:
    import keras

    from vit_tf.classifier import Classifier
    from vit_tf.predictions import Prediction, Value

MOST_READING_THREADS = 16  # of 100-megapixel images each takes about 1 GB


class Predictor:
    """A model with its preprocessing and labels, run by one of several runtimes.

    Images are read and resized in threads while the model computes. Several threads may use a predictor at
    the same time.

    Args:
        source: a folder that `vit_tf.export` wrote; a source of `vit_tf.load`; a `Classifier`; or a model of
            `build_vit`, whose preprocessing is that of its name.
        runtime: "auto" for the fastest installed runtime that reads the source, in the order of
            `vit_tf.deploy.runtimes.RUNTIMES`; or its name: "openvino", "onnxruntime", "litert", "savedmodel"
            or "keras".
        batch_size: int, images per batch.
        threads: int, the number of threads that compute, and of those that read images. Default: the number
            of cores that this process may use. Keras keeps the number of its backend.
        thresholds: for a model with several labels per image, the probability at which a label is selected:
            one number, or one per label. Default: as stored with the weights.
        variant: name of the variant, if `source` is a bare file of weights.
        image_size: int or (height, width) in pixels, one of the sizes of an exported folder that takes
            several. Default: the first of them.

    Raises:
        ValueError: the source or the runtime is unknown, the runtime is not installed or does not read the
            source, or the folder is damaged.

    Attributes:
        runtime: the `Runtime`.
        manifest: the `Manifest` of an exported folder, else None.
        preprocessing, labels, problem_type, thresholds: as of a `Classifier`.
        activation: what the model ends in, see `vit_tf.predictions.output_activation`.

    Example:
        predictor = vit_tf.Predictor("exported", runtime="openvino")
        predictor.predict("photos", top=1)  # [[("cat", 0.98)], ...]
        for image, predictions in predictor.stream(camera()):
            print(predictions[0].label)
    """

    def __init__(
        self,
        source: str | PathLike | Classifier | keras.Model,
        runtime: str = AUTO,
        *,
        batch_size: int = 8,
        threads: int | None = None,
        thresholds: float | Iterable[float] | None = None,
        variant: str | None = None,
        image_size: int | tuple[int, int] | None = None,
    ):
        check_choice("runtime", runtime, (*RUNTIMES, AUTO))
        check_int("batch_size", batch_size, 1)
        check_int("threads", threads, 1, optional=True)
        self.batch_size = batch_size
        self.threads = threads or num_cores()
        folder = exported_folder(source)
        if folder is not None:
            manifest = read_manifest(folder)
            self.manifest: Manifest | None = manifest
            self.preprocessing = manifest.make_preprocessing()
            self.activation = manifest.activation
            self.runtime = open_runtime(folder, manifest, runtime, self.threads)
            described: Any = manifest
        else:
            choose_keras(source, runtime)
            from vit_tf.classifier import open_classifier
            from vit_tf.deploy.runtimes.keras import KerasRuntime
            from vit_tf.predictions import output_activation

            described = open_classifier(source, variant)
            self.manifest = None
            self.preprocessing = described.preprocessing
            self.activation = output_activation(described.model)
            self.runtime = KerasRuntime(described.model)
        if image_size is not None:
            self.preprocessing = replace(self.preprocessing, image_size=self._checked_size(image_size))
        self.labels, self.problem_type = described.labels, described.problem_type
        self.thresholds = described.thresholds
        if thresholds is not None:
            self.thresholds = self._checked_thresholds(thresholds)

    @property
    def num_outputs(self) -> int:
        """The number of logits, or of features."""
        return self.runtime.signature.num_outputs

    @property
    def has_head(self) -> bool:
        """Whether the outputs are logits or probabilities, not features."""
        return not self.runtime.signature.output_names[0].endswith("features")

    def predict(self, images: Any, top: int = 5) -> list[list[Prediction | Value]]:
        """Returns the most probable classes: for each image a list of (label, probability), highest first.

        Args:
            images: one image or many: a path, bytes, an open file, a Pillow image or an array (h, w, c), see
                `vit_tf.preprocessing.Preprocessing`; the path of a folder, for all images below it; an array
                (b, h, w, c); or a list, a generator or another iterable of these.
            top: int, the number of classes per image.

        Returns:
            A list of `vit_tf.predictions.Prediction` per image, see `Classifier.decode`.

        Raises:
            ValueError: an image cannot be read, or the model has no head.
        """
        outputs = self.outputs(images)
        return self.decode(outputs, top) if len(outputs) else []

    def stream(
        self, images: Any, top: int = 5, on_error: Callable[[Any, Exception], Any] | None = None
    ) -> Iterator[tuple[Any, list[Prediction | Value]]]:
        """Yields `(image, predictions)` in the order of the images, while later images are read.

        The memory is bounded: at most `5 * batch_size + threads` images are under way, so that `images` may
        be a generator without an end. Closing the iterator ends its threads.

        Args:
            images: as for `predict`. A generator is read in the caller's thread.
            top: int, the number of classes per image.
            on_error: function that is called with `(image, error)` for each image that cannot be read; the
                image is left out. None raises the error, after the results of the images before.

        Yields:
            The image as it came, for example its path, and its predictions.
        """
        check_int("top", top, 1)
        self.require_head()
        for batch, outputs in self.batches(images, on_error):
            yield from zip(batch, self.decode(outputs, top))

    def probabilities(self, images: Any) -> np.ndarray:
        """Returns the probabilities of all classes, float64 (n, k).

        Args:
            images: as for `predict`.

        Raises:
            ValueError: an image cannot be read, the model has no head, or it is a regression.
        """
        is_classifier = self.problem_type != REGRESSION
        require(is_classifier, "a regression has no probabilities: `outputs` gives its values")
        self.require_head()
        outputs = self.outputs(images)
        if not len(outputs):
            return outputs.astype("float64")
        outputs = check_outputs(outputs)
        return probabilities(outputs, remaining_activation(outputs, self.problem_type, self.activation))

    def outputs(self, images: Any) -> np.ndarray:
        """Returns the logits, or the features of a model without a head, float32 (n, k).

        The outputs of a model with two heads are averaged.

        Args:
            images: as for `predict`.
        """
        parts = [outputs for _, outputs in self.batches(images)]
        return np.concatenate(parts) if parts else np.zeros((0, self.num_outputs), "float32")

    def decode(self, outputs: Any, top: int = 5) -> list[list[Prediction | Value]]:
        """Returns the predictions of the model's outputs (n, k), see `Classifier.decode`."""
        self.require_head()
        return decode_outputs(outputs, top, self.labels, self.problem_type, self.thresholds, self.activation)

    def batches(
        self, images: Any, on_error: Callable[[Any, Exception], Any] | None = None
    ) -> Iterator[tuple[list[Any], np.ndarray]]:
        """Yields `([images], outputs (b, k))` in the order of the images, see `stream` and `outputs`."""
        with thread_pool(min(self.threads, MOST_READING_THREADS)) as readers, thread_pool(1) as computer:
            read = map_ahead(readers, self.read, each_image(images), 2 * self.batch_size + self.threads)
            # One batch waits while another one computes. It is stacked in this thread, so that the computing
            # thread does not wait for the copy.
            batches = ((batch, self._stack(arrays)) for batch, arrays in self._collect(read, on_error))
            for (batch, _), outputs in map_ahead(computer, lambda item: self._run(item[1]), batches, 1):
                yield batch, outputs.result()

    def read(self, image: Any) -> np.ndarray:
        """Returns an image as the model takes it: (h, w, 3), or the bytes of a file."""
        if self.runtime.signature.input_kind == "encoded":
            return png_bytes(image)
        pixels = self.preprocessing.pixels(image)
        if self.runtime.signature.input_kind == "normalized":
            pixels = self.preprocessing.normalize(pixels)
        return pixels[0]

    def compute(self, arrays: list[np.ndarray]) -> np.ndarray:
        """Returns the outputs (b, k) of a batch of arrays that `read` returned; two heads are averaged."""
        return self._run(self._stack(arrays))

    def _stack(self, arrays):
        """Returns arrays that `read` returned as the runtime takes them."""
        return arrays if self.runtime.signature.input_kind == "encoded" else np.stack(arrays)

    def _run(self, images):
        outputs = self.runtime.run(images)
        return outputs[0] if len(outputs) == 1 else np.mean(outputs, axis=0)

    def _collect(self, read, on_error):
        """Yields batches `([images], [arrays])` of images that could be read."""
        images, arrays, failure = [], [], None
        try:
            for image, future in read:
                error = future.exception()
                if error is None:
                    images.append(image)
                    arrays.append(future.result())
                elif on_error is not None and isinstance(error, (ValueError, OSError)):
                    on_error(image, error)
                else:
                    raise error
                if len(images) == self.batch_size:
                    yield images, arrays
                    images, arrays = [], []
        except Exception as caught:  # of an image, or of the iterable of images
            failure = caught
        if images:
            yield images, arrays
        if failure is not None:
            raise failure

    def require_head(self) -> None:
        """Raises a ValueError for a model without a head."""
        require(self.has_head, "the model has no head: `outputs` gives its features")

    def _checked_size(self, image_size):
        size, signature = pair(image_size, "image_size"), self.runtime.signature
        sizes = signature.image_sizes or [signature.image_size]
        names = ", ".join("{}x{}".format(*known) for known in sizes)
        hint = "export the model for it" if self.manifest else "`vit_tf.resize_model` makes such a model"
        require(size in sizes, f"the model takes images of {names} pixels, got {shown(size)}: {hint}")
        return size

    def _checked_thresholds(self, thresholds):
        is_classifier = self.problem_type != REGRESSION
        require(is_classifier, "thresholds are for classes, and this is a regression model: leave them out")
        if isinstance(thresholds, (int, float)):
            thresholds = (thresholds,) * self.num_outputs
        check_valid("thresholds", thresholds, hasattr(thresholds, "__iter__"), "a number or one per label")
        return check_thresholds(tuple(thresholds), self.num_outputs)
