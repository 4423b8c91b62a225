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
ENCODED = ("savedmodel", "onnx")  # that can take encoded images


def export(
    model_or_source: keras.Model | Classifier | str | PathLike,
    path: str | PathLike,
    *,
    format: str,
    precision: str = "float32",
    preprocessing: bool | Preprocessing = False,
    encoded: bool = False,
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
        encoded: bool. True puts the decoding, the resize and the crop into the graph, too. An ONNX graph then
            takes the bytes of one JPEG or PNG file, as a vector of uint8, in place of images; ONNX Runtime
            needs the extra "encoded". A SavedModel has the signature for encoded images.
        image_size: int or (height, width) in pixels, to which the position table is resampled. With a list of
            these, one graph takes each of the sizes in the formats "savedmodel", "onnx" and "openvino"; the
            other formats get one folder per size inside `path`. Defaults to the model's own size.
        opset: int from 20, the version of ONNX's operators, for "onnx" (23) and "web" (20). From 23 on,
            attention is one operator.
        layout: "tfserving", "ovms" or "triton": writes the folders that this server reads.
        force: bool, whether to replace an exported folder at `path`.
        variant: name of the variant if `model_or_source` is a bare file of weights.
        onnxruntime_web: for "web", a local copy of the npm package onnxruntime-web, which npm downloads
            otherwise.
        progress: function that is called with a line of text per stage.

    Returns:
        The `Manifest` of the folder; a list of them if there is a folder per image size.

    Raises:
        ValueError: an unknown format, a missing extra, a folder that exists, a model that cannot be exported,
            or an exported model whose outputs differ from the Keras model's. Nothing is left at `path`.
        OSError: the disk is full, or the folder cannot be written to.
    """
    check_settings(format, precision, opset, layout, onnxruntime_web, encoded)
    check_new_folder(path, force)
    say = progress or (lambda line: None)
    from vit_tf.deploy.inference_model import check_positions
    from vit_tf.deploy.subject import open_subject

    subject = open_subject(model_or_source, variant, preprocessing or encoded)
    is_list = isinstance(image_size, list)
    problem = "`encoded` images are resized to one size, got several"
    require(not (encoded and is_list), f"{problem}: give one `image_size`, or leave `encoded` out")
    subjects = [
        subject.resized(size)
        for size in image_sizes(image_size if is_list else [image_size], subject.image_size)
    ]
    one_graph = is_list and FORMATS[format].has_sizes
    if one_graph:
        check_positions(subject.model)
    groups = [subjects] if one_graph else [[resized] for resized in subjects]
    with atomic_folder(path, force) as partial:
        models = {}
        names = folder_names([group[0] for group in groups], layout, is_list and not one_graph)
        for group, name in zip(groups, names):
            folder = layouts.version_folder(partial, name, layout)
            folder.mkdir(parents=True, exist_ok=True)
            model = subject.model if one_graph else group[0].model
            options = {} if onnxruntime_web is None else {"onnxruntime_web": onnxruntime_web}
            manifest = describe(group, format, precision, encoded)
            models[name] = write_checked(model, group, manifest, folder, opset, say, **options)
        if layout:
            layouts.write_server_files(partial, models, layout)
        megabytes = folder_size(partial) / 1e6
    say(f"wrote {subject.variant} to {path} ({megabytes:,.1f} MB)")
    manifests = list(models.values())
    return manifests if is_list and not one_graph else manifests[0]


def check_settings(
    format: str,
    precision: str,
    opset: int | None,
    layout: str | None,
    onnxruntime_web: str | PathLike | None = None,
    encoded: bool = False,
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
    if encoded:
        require(format in ENCODED, f"`encoded` is for {' and '.join(ENCODED)}, not for {format}")
    if encoded and format == "onnx":
        require(layout is None, f"the layout {layout} is for batches of images: leave `encoded` out")
        require_modules(["onnxruntime_extensions"], "encoded", "a model that takes encoded images")
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
    if layout:  # its servers' formats take several sizes in one graph
        return [layouts.model_name(subject.variant) for subject in subjects]
    return [layouts.size_name(x.image_size) if is_list else "" for x in subjects]


def describe(subjects, format, precision, encoded) -> Manifest:
    """Returns the `Manifest` of a graph for the image sizes of all subjects, without its agreement."""
    manifest = subjects[0].describe(format, precision)
    if len(subjects) > 1:
        manifest = replace(manifest, image_sizes=[subject.image_size for subject in subjects])
    if encoded and format == "onnx":
        manifest = replace(manifest, input_kind="encoded", input_name="encoded")
    return manifest


def write_checked(model, subjects, manifest: Manifest, folder: Path, opset, say, **options) -> Manifest:
    """Writes an exported folder and checks it; returns its `Manifest`.

    Args:
        model: the model to write.
        subjects: a `Subject` per image size that the graph takes.
        manifest: the `Manifest`, without its agreement.
        folder: an existing folder.
    """
    from vit_tf.deploy.agreement import check_agreement, check_encoded, summary
    from vit_tf.deploy.writers import savedmodel_file

    subject, format, kind = subjects[0], manifest.format, manifest.input_kind
    sizes = " or ".join("{} x {}".format(*x.image_size) for x in subjects)
    say(f"writing {format} in {manifest.precision}, for {kind} images of {sizes} pixels")
    require_space(folder, 3 * 4 * model.count_params())  # with temporary files
    import_module(WRITERS[format]).write(model, manifest, folder, opset, **options)
    write_manifest(folder, manifest)
    say(f"comparing with the Keras model on {subject.num_check_images(kind)} images")
    agreements = [check_agreement(folder, manifest, *x.check_inputs(kind)) for x in subjects]
    agreement = max(agreements, key=lambda result: result["largest_difference"])
    say(summary(agreement))
    if savedmodel_file.takes_encoded(manifest):
        files, expected = subject.check_files()
        agreement["encoded"] = check_encoded(savedmodel_file.run_encoded(folder, manifest, files), expected)
    manifest = replace(manifest, agreement=agreement)
    write_manifest(folder, manifest)
    return manifest
