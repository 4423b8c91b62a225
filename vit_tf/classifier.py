"""`Classifier`: a model with its preprocessing and labels, loaded from and saved to a folder."""

import os
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import keras

from vit_tf.checks import require, shown
from vit_tf.files import write_json
from vit_tf.hub.sources import is_keras_file
from vit_tf.labels import (
    REGRESSION,
    SINGLE_LABEL,
    check_problem_type,
    check_thresholds,
    labels_from_config,
    problem_type_from_config,
    thresholds_from_config,
)
from vit_tf.model_file import read_model
from vit_tf.models import build_vit
from vit_tf.predictions import check_labels, decode_outputs, output_activation
from vit_tf.preprocessing import Preprocessing, get_preprocessing, timm_table
from vit_tf.structure import ViTStructure, rgb_size
from vit_tf.variants import get_variant
from vit_tf.weights import open_named, resize_model, save_weights


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model with its preprocessing and labels.

    Args:
        model: a `keras.Model` from normalised images (b, h, w, 3) to logits (b, k).
        preprocessing: a `Preprocessing`, from files, arrays and Pillow images to the inputs of `model`.
        labels: the class names, or None for those of ImageNet if there are 1,000 classes, else for numbers.
        problem_type: one of `vit_tf.labels.PROBLEM_TYPES`, the meaning of the logits.
        thresholds: for a multi-label model, the probability at which each class counts as present. None
            means 0.5 for all classes.
    """

    model: keras.Model
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    problem_type: str = SINGLE_LABEL
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self):
        check_problem_type(self.problem_type)

    def predict(self, images, top=5):
        """Returns the most probable classes: for each image a list of (label, probability), highest first.

        Args:
            images: a path, bytes, an open file, a Pillow image, an array, or a list of these; see
                `Preprocessing`.
            top: int, the number of classes per image.

        Returns:
            A list of `vit_tf.predictions.Prediction` per image, see `decode`.
        """
        return self.decode(self.model.predict_on_batch(self.preprocessing(images)), top)

    def decode(self, outputs, top=5):
        """Returns the predictions of the model's outputs (b, k): per image a list of pairs, highest first.

        `problem_type` and the number of outputs determine whether softmax or sigmoid is applied. Neither is
        applied to a model that already ends in one. A multi-label model gives all labels that reach their
        threshold, marked as `selected`, and others up to `top`. A single logit with two labels gives the
        probability of the second label. A regression gives (label, value) for all outputs. See
        `decode_predictions`.
        """
        last = output_activation(self.model)
        return decode_outputs(outputs, top, self.labels, self.problem_type, self.thresholds, last)


def load(
    source: str | PathLike, variant: str | None = None, headless: bool = False, image_size: Any = None
) -> Classifier:
    """Loads a classifier from the folder of a fine-tuning run, or from any published weights.

    Args:
        source: for example "runs/pets", which means "runs/pets/model", or
            "hf:timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"; see `vit_tf.load_weights`. Or a file that
            `model.save("NAME.keras")` wrote.
        variant: name of the variant, if the source is a bare file. Defaults to the one that its weights look
            like. Of a .keras file it gives the preprocessing; by default the model's own name does.
        headless: bool, whether to accept a model without a head, which gives features.
        image_size: int or (height, width) in pixels, to which the position table is resampled. A side of None
            takes any size, see `build_vit`; the preprocessing then makes images of the size that the
            checkpoint was evaluated at. Defaults to the checkpoint's own.

    Returns:
        A `Classifier`.

    Raises:
        ValueError: the source cannot be read, names no variant, has no head, or does not take RGB images.
    """
    if is_keras_file(source):
        model = read_model(source)
        check_head(source, headless or ViTStructure(model, nested=True).heads)
        return bare_classifier(model if image_size is None else resize_model(model, image_size), variant)
    weights = open_named(source, variant)
    check_head(source, headless or "head.weight" in weights.tensors)
    config = weights.checkpoint.config
    labels, problem_type = labels_from_config(config), problem_type_from_config(config)
    head = weights.tensors.get("head.weight")
    if labels and head is not None and head.shape:
        try:
            check_labels(labels, head.shape[0], problem_type != REGRESSION)
        except ValueError as error:
            raise ValueError(f"{os.fspath(source)!r} has labels of another model: {error}") from error
    model = build_vit(variant, weights=weights, image_size=image_size)
    channels = model.input_shape[-1]
    if channels != 3:
        raise ValueError(f"{os.fspath(source)!r} takes images of {channels} channels, expected 3")
    settings = weights.preprocessing_config or variant or weights.describe()[0]
    prepare = get_preprocessing(settings, image_size=model.input_shape[1:3])
    thresholds = thresholds_from_config(config, model.output_shape[-1])
    return Classifier(model, prepare, labels, problem_type, thresholds)


def check_head(source, has_head):
    require(has_head, f"{os.fspath(source)!r} has no head: the model gives features, not classes")


def open_classifier(
    model_or_source: Any, variant: str | None = None, preprocessing: Preprocessing | None = None
) -> Classifier:
    """Returns the `Classifier` of a source of `load`, of a Keras model, or a `Classifier` itself.

    Args:
        model_or_source: a source, with or without a head, a `Classifier` or a `keras.Model`.
        variant: name of the variant, see `load`.
        preprocessing: replaces that of the model.

    Raises:
        ValueError: there is no such source, or the preprocessing of the model is unknown.
    """
    if isinstance(model_or_source, keras.Model):
        return bare_classifier(model_or_source, variant, preprocessing)
    if isinstance(model_or_source, (str, PathLike)):
        opened = load(model_or_source, variant, headless=True)
    else:
        opened = model_or_source
        expected = "the model must be a Keras model, a Classifier or a source"
        require(isinstance(opened, Classifier), f"{expected}, got {shown(opened)}")
    return opened if preprocessing is None else replace(opened, preprocessing=preprocessing)


def bare_classifier(
    model: keras.Model, variant: str | None = None, preprocessing: Preprocessing | None = None
) -> Classifier:
    """Returns the `Classifier` of a model without labels.

    Args:
        model: a model of `build_vit`, or one that extends it.
        variant: the name that gives the preprocessing; defaults to that of the model. The preprocessing of a
            model that normalises inside gives pixels in [0, 255], and needs no name.
        preprocessing: a `Preprocessing`, if it is known.

    Raises:
        ValueError: the model is of another kind, takes something other than RGB images of one size, or has no
            known name.
    """
    size = rgb_size(model)
    if preprocessing is not None:
        return Classifier(model, preprocessing, None)
    is_normalized_inside = ViTStructure(model, nested=True).normalization is not None
    name = variant or model.name
    try:
        preprocessing = get_preprocessing(name, size)
    except ValueError as error:
        if not is_normalized_inside:
            raise ValueError(
                f"no checkpoint is called {name!r}, so the preprocessing of the model is unknown: name its "
                "variant (`variant`, --model), or give a `Classifier(model, Preprocessing(...), labels)`"
            ) from error
        preprocessing = Preprocessing(size, crop_fraction=1.0)
    if is_normalized_inside:
        preprocessing = replace(preprocessing, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    return Classifier(model, preprocessing, None)


def save(
    folder,
    model,
    variant,
    hyperparameters,
    preprocessing,
    labels,
    dtype="float32",
    problem_type=SINGLE_LABEL,
    thresholds=None,
):
    """Writes a classifier to a folder. `load`, `vit-tf predict` and, for timm's own models, timm read it.

    Args:
        folder: path; a missing folder is created. Its config.json and model.safetensors are replaced.
        model: a model of `build_vit`.
        variant: the name of its variant.
        hyperparameters: dict of the overrides in `build_vit`, including the number of classes.
        preprocessing: a `Preprocessing`; None if images do not have three channels.
        labels: class names, one per logit; or two names for a single logit, whose sigmoid is the probability
            of the second.
        dtype: the dtype of the weights in the file, see `vit_tf.save_weights`.
        problem_type: one of `vit_tf.labels.PROBLEM_TYPES`.
        thresholds: for a multi-label model, one number in [0, 1] per logit: the probability at which the
            class counts as present. None means 0.5.

    Raises:
        ValueError: labels, problem type or thresholds do not fit the model.
        OSError: the disk is full, or the folder cannot be written to.
    """
    config = make_config(model, variant, hyperparameters, preprocessing, labels, problem_type, thresholds)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").unlink(missing_ok=True)  # without this file, the folder counts as incomplete
    save_weights(model, folder / "model.safetensors", dtype=dtype)
    write_json(folder / "config.json", config)


def make_config(model, variant, hyperparameters, preprocessing, labels, problem_type, thresholds):
    """Returns the content of config.json as a dict, see `save`."""
    num_classes = model.output_shape[-1] if labels else 0  # 0: the model has no head
    check_problem_type(problem_type)
    check_labels(labels, num_classes)
    hyperparameters = with_positions(model, hyperparameters)
    spec, channels = get_variant(variant, **hyperparameters), model.input_shape[-1]
    size = list(spec.native_size)
    any_size = {"dynamic_img_size": True} if spec.takes_any_size else {}  # timm's name for it
    config = {
        "num_classes": num_classes,
        "label_names": list(labels),
        "problem_type": problem_type,
        "model_args": {"img_size": size, **any_size},
        "pretrained_cfg": {"input_size": [channels, *size], "num_classes": num_classes},
        "vit_tf": {"variant": variant, "hyperparameters": hyperparameters},
    }
    if thresholds is not None:
        config["thresholds"] = list(check_thresholds(thresholds, num_classes))
    if is_timm(variant, hyperparameters):
        config["architecture"] = variant
    if preprocessing is not None:
        config["pretrained_cfg"] |= {
            "interpolation": preprocessing.interpolation,
            "crop_pct": preprocessing.crop_fraction,
            "crop_mode": preprocessing.crop_mode,
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
        }
    return config


def with_positions(model, hyperparameters):
    """Returns the overrides in `build_vit` with those of the position table, if the model takes any size."""
    if None not in model.input_shape[1:3]:
        return hyperparameters
    encoder = ViTStructure(model).patch_encoder
    positions = {"position_grid": encoder.position_grid, "position_resampling": dict(encoder.resampling)}
    return {"image_size": model.input_shape[1:3], **positions, **hyperparameters}


def is_timm(variant, hyperparameters):
    """Whether timm builds the same model from the variant name, the image size and the number of classes."""
    spec, plain = asdict(get_variant(variant, **hyperparameters)), asdict(get_variant(variant))
    differing = {name for name in spec if spec[name] != plain[name]}
    known = {"image_size", "num_classes", "position_grid", "position_resampling"}
    return variant in timm_table()["architectures"] and differing <= known
