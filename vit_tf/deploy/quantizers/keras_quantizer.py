"""Keras: `model.quantize`, which stores the kernels of dense layers in int8."""

import warnings

import keras

from vit_tf.deploy.quantizers.candidates import Candidate, Layer

REASONS = {"convolution": "Keras quantizes the kernels of dense layers alone"}
CANDIDATES = (Candidate("dense kernels", {"mode": "int8"}, REASONS),)


def write(candidate, subject, source, images, path):
    """See `vit_tf.deploy.quantizers`."""
    model = keras.models.clone_model(subject.model)
    model.set_weights(subject.model.get_weights())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of each layer that has no kernel
        model.quantize(candidate.settings["mode"])
    model.save(path)


def layers(path):
    """See `vit_tf.deploy.quantizers`."""
    found = []
    for layer in keras.models.load_model(path)._flatten_layers():
        if isinstance(layer, keras.layers.Dense):
            found.append(Layer(layer.path, "dense", layer.quantization_mode is not None))
        elif isinstance(layer, keras.layers.Conv2D) or hasattr(layer, "whitening"):
            found.append(Layer(layer.path, "convolution", False))
    return found
