"""`export`: a model as a folder that another runtime reads, checked there against the Keras model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_tf.checks import check_choice, check_int, pair, require, shown
from vit_tf.deploy import layouts
from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.extras import require_modules
from vit_tf.deploy.folders import atomic_folder, check_new_folder, folder_size
from vit_tf.deploy.manifest import Manifest, write_manifest
from vit_tf.deploy.writers import WRITERS
from vit_tf.files import require_space

if TYPE_CHECKING:
    import keras

    from vit_tf.classifier import Classifier
    from vit_tf.preprocessing import Preprocessing

LOWEST_OPSET = 20


def export(
    model_or_source: keras.Model | Classifier | str | PathLike,
    path: str | PathLike,
    *,
    format: str,
    precision: str = "float32",
    preprocessing: bool | Preprocessing = False,
    image_size: Any = None,
    opset: int | None = None,
    layout: str | None = None,
    force: bool = False,
    variant: str | None = None,
    onnxruntime_web: str | PathLike | None = None,
    progress: Callable[[str], Any] | None = None,
) -> Manifest | list[Manifest]:
    """Writes a model as a folder for another runtime, and checks it there against the Keras model.

    The folder has the file of the format (`vit_tf.deploy.export_formats`) and vit_tf.json, its `Manifest`,
    with labels, preprocessing and the measured agreement. It appears under its name only after the check.

    Args:
        model_or_source: a `Classifier`, a source of `vit_tf.load`, or a functional model with a model of
            `build_vit` inside. Augmentation is left out.
        path: the folder to write.
        format: "savedmodel", "onnx", "openvino", "litert" or "web".
        precision: "float32"; "float16" except for "savedmodel"; "bfloat16" for "openvino". OpenVINO and
            LiteRT store the weights in float16; OpenVINO computes in bfloat16 where the processor has it.
        preprocessing: True puts the normalisation into the graph, which then takes uint8 pixels of the
            model's image size; a SavedModel also gets a signature that takes encoded images. A model that
            normalises inside is always exported so. A `Preprocessing` replaces that of the model.
        image_size: int or (height, width) in pixels, to which the position table is resampled. A list of
            these writes one folder per size inside `path`. Defaults to the model's own size.
        opset: int, ONNX only.
        layout: "tfserving", "ovms" or "triton": writes the folders that this server reads.
        force: bool, whether to replace an exported folder at `path`.
        variant: name of the variant if `model_or_source` is a bare file of weights.
        onnxruntime_web: for "web", a local copy of the npm package onnxruntime-web, which npm downloads
            otherwise.
        progress: function that is called with a line of text per stage.

    Returns:
        The `Manifest` of the folder; a list of them for a list of image sizes.

    Raises:
        ValueError: an unknown format, a missing extra, a folder that exists, a model that cannot be exported,
            or an exported model whose outputs differ from the Keras model's. Nothing is left at `path`.
        OSError: the disk is full, or the folder cannot be written to.
    """
    check_settings(format, precision, opset, layout, onnxruntime_web)
    check_new_folder(path, force)
    say = progress or (lambda line: None)
    from vit_tf.deploy.subject import open_subject

    subject = open_subject(model_or_source, variant, preprocessing)
    sizes = image_size if isinstance(image_size, list) else [image_size]
    subjects = [subject.resized(size) for size in image_sizes(sizes, subject.image_size)]
    with atomic_folder(path, force) as partial:
        models = {}
        for subject, name in zip(subjects, folder_names(subjects, layout, isinstance(image_size, list))):
            folder = layouts.version_folder(partial, name, layout)
            folder.mkdir(parents=True, exist_ok=True)
            options = {} if onnxruntime_web is None else {"onnxruntime_web": onnxruntime_web}
            models[name] = write_checked(subject, folder, format, precision, opset, say, **options)
        if layout:
            layouts.write_server_files(partial, models, layout)
        megabytes = folder_size(partial) / 1e6
    say(f"wrote {subject.variant} to {path} ({megabytes:,.1f} MB)")
    manifests = list(models.values())
    return manifests if isinstance(image_size, list) else manifests[0]


def check_settings(
    format: str,
    precision: str,
    opset: int | None,
    layout: str | None,
    onnxruntime_web: str | PathLike | None = None,
) -> None:
    """Raises a ValueError for settings that do not fit each other, or a missing extra, without Keras."""
    check_choice("format", format, WRITERS)
    precisions = FORMATS[format].precisions
    expected = f"`precision` for {format} must be one of {', '.join(precisions)}"
    require(precision in precisions, f"{expected}, got {precision!r}")
    if opset is not None:
        require(format in ("onnx", "web"), f"`opset` is for ONNX, not for {format}")
        check_int("opset", opset, LOWEST_OPSET)
    layouts.check_layout(layout, format)
    require_modules(FORMATS[format].modules, FORMATS[format].extra, f"the format {format}")
    is_for_it = format == "web" or onnxruntime_web is None
    require(is_for_it, f"`onnxruntime_web` is for the format web, not for {format}")


def image_sizes(sizes, own):
    """Returns sizes as pairs (height, width); None is the model's own size."""
    pairs = [own if size is None else pair(size, "image_size") for size in sizes]
    is_valid = pairs and len(set(pairs)) == len(pairs)
    require(is_valid, f"`image_size` must be a size, or a list of different sizes, got {shown(sizes)}")
    return pairs


def folder_names(subjects, layout, is_list):
    """Returns the name of each subject's folder inside OUT; "" for OUT itself."""
    if layout:
        return [layouts.model_name(x.variant, x.image_size if is_list else None) for x in subjects]
    return [layouts.size_name(x.image_size) if is_list else "" for x in subjects]


def write_checked(subject, folder: Path, format, precision, opset, say, **options) -> Manifest:
    """Writes an exported folder and checks it; returns its `Manifest`."""
    from vit_tf.deploy.agreement import check_agreement, check_encoded, summary
    from vit_tf.deploy.writers import savedmodel_file

    manifest = subject.describe(format, precision)
    height, width = manifest.image_size
    say(f"writing {format} in {precision}, for {manifest.input_kind} images of {height} x {width} pixels")
    require_space(folder, 3 * 4 * subject.model.count_params())  # with temporary files
    import_module(WRITERS[format]).write(subject.model, manifest, folder, opset, **options)
    write_manifest(folder, manifest)
    say(f"comparing with the Keras model on {subject.num_check_images} images")
    images, expected = subject.check_images()
    agreement = check_agreement(folder, manifest, images, expected)
    say(summary(agreement))
    if savedmodel_file.takes_encoded(manifest):
        files, expected = subject.check_files()
        agreement["encoded"] = check_encoded(savedmodel_file.run_encoded(folder, manifest, files), expected)
    manifest = replace(manifest, agreement=agreement)
    write_manifest(folder, manifest)
    return manifest
