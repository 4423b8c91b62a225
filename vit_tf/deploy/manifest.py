"""vit_tf.json: what an exported folder holds, read and written without Keras."""

from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

from vit_tf.checks import check_choice, check_int, check_valid, pair, require, shown
from vit_tf.deploy.export_formats import FORMATS, MANIFEST
from vit_tf.files import read_json, write_json
from vit_tf.labels import REGRESSION, check_problem_type, check_thresholds
from vit_tf.predictions import check_labels
from vit_tf.preprocessing.transform import Preprocessing

# What the model's graph takes: float32 after `Preprocessing`, pixels, or the bytes of one image file.
INPUTS = ("normalized", "uint8", "encoded")
PRECISIONS = ("float32", "float16", "bfloat16", "int8")
ACTIVATIONS = ("linear", "softmax", "sigmoid")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The description of an exported folder.

    Args:
        format: a key of `vit_tf.deploy.export_formats.FORMATS`.
        precision: of the weights and the computation: "float32", "float16", "bfloat16" or "int8".
        input_kind: one of `INPUTS`. Images come as (b, h, w, 3), in the order red, green, blue; "encoded" is
            a vector of uint8.
        input_name, output_names: names in the graph.
        image_size: (height, width) in pixels; that of `preprocessing`.
        image_sizes: all sizes that the graph takes, if there are several; `image_size` is the first.
        num_outputs: int, the number of logits; features if `labels` is None and the model has no head.
        preprocessing: fields of a `Preprocessing`.
        labels: class names or None, see `vit_tf.classifier.Classifier`.
        problem_type: one of `vit_tf.labels.PROBLEM_TYPES`.
        activation: what the graph ends in: "linear", or "softmax" or "sigmoid" for probabilities.
        thresholds: numbers or None, see `Classifier`.
        source: text that names where the weights came from.
        variant: the name of the model.
        versions: dict of package names to versions, of what wrote the folder.
        agreement: the measured agreement with the Keras model: see `vit_tf.deploy.agreement`.
        quantization: dict of settings and results, None for a model that is not quantized.
    """

    format: str
    precision: str
    input_kind: str
    input_name: str
    output_names: tuple[str, ...]
    image_size: tuple[int, int]
    num_outputs: int
    preprocessing: dict[str, Any]
    labels: tuple[str, ...] | None
    problem_type: str
    activation: str
    thresholds: tuple[float, ...] | None
    source: str
    variant: str
    image_sizes: tuple[tuple[int, int], ...] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    agreement: dict[str, Any] = field(default_factory=dict)
    quantization: dict[str, Any] | None = None

    def __post_init__(self):
        check_choice("format", self.format, FORMATS)
        check_choice("input_kind", self.input_kind, INPUTS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_problem_type(self.problem_type)
        check_int("num_outputs", self.num_outputs, 1)
        for name in ("output_names", "image_size", "labels", "thresholds", "image_sizes"):
            value = getattr(self, name)
            check_valid(name, value, isinstance(value, (list, tuple)), "a list", optional=True)
            object.__setattr__(self, name, None if value is None else tuple(value))
        size = pair(self.make_preprocessing().image_size, "image_size")  # checks the fields, too
        expected = f"`image_size` must be that of the preprocessing, {size}"
        require(self.image_size == size, f"{expected}, got {shown(self.image_size)}")
        if self.image_sizes is not None:
            sizes = tuple(pair(size, "image_sizes") for size in self.image_sizes)
            object.__setattr__(self, "image_sizes", sizes)
            require(size in sizes, f"`image_sizes` must have `image_size`, got {shown(sizes)}")
        check_labels(self.labels, self.num_outputs, self.problem_type != REGRESSION)
        if self.thresholds is not None:
            check_thresholds(self.thresholds, self.num_outputs)

    def make_preprocessing(self) -> Preprocessing:
        """Returns the `Preprocessing` of the model."""
        return Preprocessing(**self.preprocessing)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(Path(folder) / MANIFEST, asdict(manifest))


def exported_folder(source: Any) -> Path | None:
    """Returns the exported folder that a source names, also by its main file; None for other sources."""
    if not isinstance(source, (str, PathLike)):
        return None
    path = Path(source)
    folder = path.parent if path.name in {format.file for format in FORMATS.values()} else path
    try:
        return folder if (folder / MANIFEST).is_file() else None
    except (OSError, ValueError):  # too long for a name
        return None


def check_is_not_exported(source: str | PathLike) -> None:
    """Raises a ValueError for an exported model where weights are expected. A .keras file has weights."""
    files = {format.file for format in FORMATS.values() if format.precisions}
    path, folder = Path(source), exported_folder(source)
    if folder is not None:
        manifest = read_manifest(folder)
        problem = f"{str(source)!r} is an exported model, and weights are expected"
        hint = f"give what it was exported from, {shown(manifest.source)}"
        require(manifest.format == "keras", f"{problem}: {hint}")
        return
    is_weights = (path / "config.json").is_file()
    found = next((path / file for file in sorted(files) if (path / file).is_file()), None)
    if path.is_file() and path.suffix in {Path(file).suffix for file in files}:
        found = path
    problem = f"{str(found)!r} has no {MANIFEST} beside it, which `vit-tf export` writes"
    require(is_weights or found is None, f"{problem}: give weights, or an exported folder")


def read_manifest(folder: str | Path) -> Manifest:
    """Returns the `Manifest` of an exported folder.

    Raises:
        ValueError: there is no vit_tf.json, or it is damaged.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"{str(folder)!r} is no exported folder: it has no {MANIFEST}; `vit-tf export` writes one"
        )
    content = read_json(path)
    known = {item.name for item in fields(Manifest)}
    if unknown := sorted(content.keys() - known):
        raise ValueError(
            f"{str(path)!r} has unknown fields {shown(unknown)}: was it written by a newer version?"
        )
    try:
        return Manifest(**content)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error
