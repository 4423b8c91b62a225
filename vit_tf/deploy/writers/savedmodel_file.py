"""TensorFlow SavedModels, by Keras's `ExportArchive`.

The archive does not track the model: this would write all weights twice. It finds the variables that the
signatures use.
"""

from pathlib import Path
from typing import Any

import keras

from vit_tf.checks import require
from vit_tf.deploy.manifest import Manifest
from vit_tf.weights import resize_model

ENCODED, ENCODED_INPUT = "encoded_images", "image_bytes"  # TensorFlow Serving decodes base64 for "..._bytes"


def write(model: keras.Model, manifest: Manifest, folder: Path, opset: Any = None) -> None:
    """Writes a SavedModel into a folder, see `vit_tf.deploy.writers`.

    The signature "serving_default" takes "images". If the graph normalises, a second one, "encoded_images",
    takes "image_bytes" (b,), the bytes of JPEG, PNG or GIF files: it decodes and resizes as `Preprocessing`
    does, but does not rotate by EXIF.

    If the manifest has several image sizes, the graph resamples the position table to the size of the images.
    """
    import tensorflow as tf

    require_tensorflow("savedmodel")
    size: tuple[int | None, ...] = manifest.image_size
    if manifest.image_sizes is not None:
        size = (None, None)
        model = resize_model(model, size)
    archive = keras.export.ExportArchive()
    dtype = "uint8" if manifest.input_kind == "uint8" else "float32"
    images = tf.TensorSpec((None, *size, 3), dtype, name=manifest.input_name)
    archive.add_endpoint("serving_default", serving_function(model, manifest), input_signature=[images])
    if takes_encoded(manifest):
        encoded = tf.TensorSpec((None,), "string", name=ENCODED_INPUT)
        archive.add_endpoint(ENCODED, decoding_function(model, manifest), input_signature=[encoded])
    archive.write_out(folder, verbose=False)


def require_tensorflow(format):
    """Raises a ValueError on another backend: a SavedModel of JAX runs nowhere but in TensorFlow with XLA."""
    backend = keras.backend.backend()
    require(backend == "tensorflow", f"the format {format} needs KERAS_BACKEND=tensorflow, got {backend!r}")


def serving_function(model, manifest):
    """Returns the function from "images" to a dict of outputs."""
    normalize = manifest.make_preprocessing().normalization()

    def serve(images):
        x = normalize(images) if manifest.input_kind == "uint8" else images
        return named_outputs(model, manifest, x)

    return serve


def named_outputs(model, manifest, images):
    outputs = keras.tree.flatten(model(images, training=False))
    return dict(zip(manifest.output_names, outputs))


def takes_encoded(manifest: Manifest) -> bool:
    """Whether a SavedModel has the signature that takes encoded images.

    `PreprocessImages` knows the two usual interpolations only, and resizes to one size.
    """
    return (
        manifest.format == "savedmodel"
        and manifest.input_kind == "uint8"
        and manifest.image_sizes is None
        and manifest.preprocessing["interpolation"] in ("bicubic", "bilinear")
    )


def run_encoded(folder: Path, manifest: Manifest, files: list[bytes]) -> list[Any]:
    """Returns the outputs of a SavedModel for the bytes of image files, arrays (n, k)."""
    import tensorflow as tf

    model = tf.saved_model.load(str(folder))
    outputs = model.signatures[ENCODED](**{ENCODED_INPUT: tf.constant(files)})
    return [outputs[name].numpy() for name in manifest.output_names]


def decoding_function(model, manifest):
    """Returns the function from "image_bytes" to a dict of outputs."""
    import tensorflow as tf

    prepare = manifest.make_preprocessing().layer()
    size = (*manifest.image_size, 3)

    def prepare_one(encoded):
        # The decoder of JPEG reads PNG and GIF, too. Its default is up to 6/255 away from Pillow's.
        image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(prepare(image[None])[0], size)

    def serve(image_bytes):
        images = tf.map_fn(prepare_one, image_bytes, fn_output_signature=tf.TensorSpec(size, "float32"))
        return named_outputs(model, manifest, images)

    return serve
