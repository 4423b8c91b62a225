"""Models for the runtime "keras": in memory, or from a source of `vit_tf.load`."""

import os
from typing import Any

import keras

from vit_tf.checks import shown
from vit_tf.classifier import Classifier, load
from vit_tf.preprocessing import get_preprocessing


def open_classifier(source: Any, variant: str | None = None) -> Classifier:
    """Returns the `Classifier` of a source of `vit_tf.load`, or of a model of `build_vit`.

    Args:
        source: a source, a `Classifier` or a `keras.Model`.
        variant: name of the variant, if the source is a bare file.

    Raises:
        ValueError: there is no such source, or the preprocessing of the model is unknown.
    """
    if isinstance(source, Classifier):
        return source
    if isinstance(source, (str, os.PathLike)):
        return load(source, variant, headless=True)
    if not isinstance(source, keras.Model):
        expected = "a folder, a source of weights, a Classifier or a Keras model"
        raise ValueError(f"`source` must be {expected}, got {shown(source)}")
    try:
        preprocessing = get_preprocessing(source.name, tuple(source.input_shape[1:3]))
    except ValueError as error:
        raise ValueError(
            f"no checkpoint is called {source.name!r}, so that the preprocessing of the model is unknown: "
            "give `Classifier(model, Preprocessing(...), labels)`"
        ) from error
    return Classifier(source, preprocessing, None)
