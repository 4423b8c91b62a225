"""`Subject`: what is exported: a model with its preprocessing and labels, and how it is checked."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.metadata import version
from io import BytesIO
from typing import Any

import keras
import numpy as np
from PIL import Image

from vit_tf import __version__
from vit_tf.checks import require
from vit_tf.classifier import Classifier, open_classifier
from vit_tf.data import load_cifar
from vit_tf.deploy.agreement import run_batches
from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.inference_model import make_inference_model
from vit_tf.deploy.manifest import Manifest
from vit_tf.labels import REGRESSION
from vit_tf.predictions import check_labels, output_activation
from vit_tf.preprocessing import Preprocessing
from vit_tf.structure import ViTStructure, flat_layers
from vit_tf.weights import resize_model

MOST_IMAGES, FEWEST_IMAGES = 64, 8
FLOPS = 2.5e12  # of the check's images; ViT-B at 224 pixels needs 2.2e12 for all 64


@dataclass(frozen=True)
class Subject:
    """A model to export.

    Args:
        model: the flat model for inference, from normalised images.
        reference: the Keras model that the exported one is compared with.
        reference_takes_pixels: bool, whether `reference` normalises inside.
        classifier: a `Classifier`: preprocessing, labels, problem type and thresholds of `model`.
        takes_pixels: bool, whether the exported graph normalises inside.
        source: text that names where the weights came from.
    """

    model: keras.Model
    reference: keras.Model
    reference_takes_pixels: bool
    classifier: Classifier
    takes_pixels: bool
    source: str

    @property
    def variant(self):
        return self.model.name

    @property
    def image_size(self):
        """(height, width) in pixels."""
        return tuple(self.model.input_shape[1:3])

    @property
    def output_names(self):
        kind = "logits" if ViTStructure(self.model).heads else "features"
        return (kind, f"distillation_{kind}")[: len(self.model.outputs)]

    def resized(self, image_size):
        """Returns the subject for another image size, (height, width)."""
        if image_size == self.image_size:
            return self
        model = resize_model(self.model, image_size)
        settings = replace(self.classifier.preprocessing, image_size=image_size)
        classifier = replace(self.classifier, model=model, preprocessing=settings)
        return replace(
            self, model=model, reference=model, reference_takes_pixels=False, classifier=classifier
        )

    def describe(self, format: str, precision: str) -> Manifest:
        """Returns the `Manifest` of an exported folder, without its agreement."""
        activation = output_activation(self.model)
        return Manifest(
            format=format,
            precision=precision,
            input_kind="uint8" if self.takes_pixels else "normalized",
            input_name="images",
            output_names=self.output_names,
            image_size=self.image_size,
            num_outputs=self.model.outputs[0].shape[-1],
            preprocessing=self.classifier.preprocessing.to_dict(),
            labels=self.classifier.labels,
            problem_type=self.classifier.problem_type,
            activation=activation if activation in ("softmax", "sigmoid") else "linear",
            thresholds=self.classifier.thresholds,
            source=self.source,
            variant=self.variant,
            versions=versions(format),
        )

    def num_check_images(self, input_kind):
        """Returns the number of images of the check: fewer for large models."""
        if input_kind == "encoded":
            return FEWEST_IMAGES
        flops = 2 * self.model.count_params() * ViTStructure(self.model).num_tokens
        return int(np.clip(FLOPS // flops, FEWEST_IMAGES, MOST_IMAGES))

    def check_inputs(self, input_kind):
        """Returns images as a graph of an `input_kind` takes them, and the Keras model's outputs."""
        if input_kind == "encoded":
            files, expected = self.check_files()
            return [np.frombuffer(file, "uint8") for file in files], expected
        pixels, normalized = prepare(
            self.sample(self.num_check_images(input_kind)), self.classifier.preprocessing
        )
        return pixels if self.takes_pixels else normalized, self.expected(pixels, normalized)

    def check_files(self):
        """Returns the bytes of PNG and JPEG files, and the Keras model's outputs."""
        images = [np.tile(image, (3, 2, 1)) for image in self.sample(FEWEST_IMAGES)]  # not square
        files = [encoded(image, kind) for image, kind in zip(images, ("PNG", "JPEG") * FEWEST_IMAGES)]
        decoded = [np.asarray(Image.open(BytesIO(file))) for file in files]
        return files, self.expected(*prepare(decoded, self.classifier.preprocessing))

    def sample(self, count):
        """Returns test images of CIFAR-10, uint8 (count, 32, 32, 3), of all classes."""
        images = load_cifar("sample").x_test
        return images[:: len(images) // count][:count]

    def expected(self, pixels, normalized):
        """Returns the Keras model's outputs, arrays (n, k), of images that are not and are normalised."""

        def run(batch):
            outputs = keras.tree.flatten(self.reference(batch, training=False))
            return tuple(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in outputs)

        inputs = pixels.astype("float32") if self.reference_takes_pixels else normalized
        return run_batches(run, inputs, 16)


def encoded(image, kind):
    """Returns the bytes of an image file."""
    file = BytesIO()
    Image.fromarray(image).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def prepare(images, preprocessing):
    """Returns images (n, h, w, 3) resized as uint8 pixels, and normalised as float32."""
    pixels = np.stack([np.asarray(preprocessing.resize_and_crop(Image.fromarray(x))) for x in images])
    return pixels, preprocessing.normalize(pixels)


def open_subject(
    model_or_source: Any, variant: str | None = None, preprocessing: bool | Preprocessing = False
) -> Subject:
    """Returns the `Subject` of a Keras model, a `Classifier`, or a source of `vit_tf.load`.

    Args: as of `vit_tf.export`.

    Raises:
        ValueError: there is no such source, the model cannot be exported, or its preprocessing is unknown.
    """
    settings = preprocessing if isinstance(preprocessing, Preprocessing) else None
    opened = open_classifier(model_or_source, variant, settings)
    check_computation(opened.model)
    inference = make_inference_model(opened.model)
    is_source = isinstance(model_or_source, (str, os.PathLike))
    return Subject(
        model=inference.model,
        reference=opened.model,
        reference_takes_pixels=inference.scale is not None,
        classifier=inference_classifier(opened, inference),
        takes_pixels=bool(preprocessing) or inference.scale is not None,
        source=os.fspath(model_or_source) if is_source else f"the Keras model {opened.model.name}",
    )


def inference_classifier(opened, inference):
    """Returns the checked `Classifier` of an `InferenceModel`, from that of the model that it was made of."""
    model, settings = inference.model, opened.preprocessing
    size = tuple(model.input_shape[1:3])
    got = f"got {settings.image_size}"
    require(settings.image_size == size, f"the preprocessing must make images of {size} pixels, {got}")
    if inference.scale is not None:
        mean, std = inference.statistics
        settings = replace(settings, mean=mean, std=std)
    if not ViTStructure(model).heads:  # labels of features have no meaning
        return Classifier(model, settings, None)
    check_outputs(model, opened)
    return replace(opened, model=model, preprocessing=settings)


def check_outputs(model, classifier):
    """Raises a ValueError for labels or thresholds of another model."""
    num_outputs = model.outputs[0].shape[-1]
    if classifier.labels is not None:
        check_labels(classifier.labels, num_outputs, classifier.problem_type != REGRESSION)
    if classifier.thresholds is not None:
        expected = f"`thresholds` must be {num_outputs} numbers, one per output"
        require(len(classifier.thresholds) == num_outputs, f"{expected}, got {len(classifier.thresholds)}")


def check_computation(model):
    """Raises a ValueError for a model that computes in half precision or in integers."""
    dtypes = {layer.compute_dtype for layer in flat_layers(model)}
    halves = sorted(dtypes & {"float16", "bfloat16"})
    problem = f"{model.name!r} computes in {', '.join(halves)}, and the exported model is compared in float32"
    require(not halves, f"{problem}: build it under the dtype policy float32, and load its weights")
    is_quantized = any(getattr(layer, "quantization_mode", None) for layer in model._flatten_layers())
    require(not is_quantized, f"{model.name!r} is quantized: export or quantize the float32 model instead")


def versions(format):
    """Returns the versions of the packages that write a format, a dict."""
    packages = ("keras", keras.backend.backend(), *FORMATS[format].modules)
    return {"vit_tf": __version__, **{name: version(name) for name in packages}}
