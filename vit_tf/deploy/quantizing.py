"""`quantize`: a model in int8 for a runtime, with settings that are chosen by measuring them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_tf.checks import brief, check_choice, check_int, check_number, require
from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.extras import require_modules
from vit_tf.deploy.folders import atomic_folder, check_new_folder, disk_errors
from vit_tf.deploy.manifest import Manifest, write_manifest

if TYPE_CHECKING:
    import keras

    from vit_tf.classifier import Classifier

# From runtimes to the formats of their quantized models, and to modules beside those of the format.
RUNTIMES = {
    "openvino": ("openvino", ("nncf",)),
    "onnxruntime": ("onnx", ()),
    "litert": ("litert", ("tensorflow",)),
    "keras": ("keras", ()),
}
SPEED_BATCH = 8
SAME_SPEED = 0.95  # of the fastest: the more accurate one is kept


def quantize(
    model_or_source: keras.Model | Classifier | str | PathLike,
    path: str | PathLike,
    data: str | PathLike,
    *,
    runtime: str,
    max_drop: float = 0.5,
    calibration_images: int = 300,
    held_out: int | None = None,
    preprocessing: bool = False,
    match: str = "name",
    max_bad: float = 0.01,
    force: bool = False,
    variant: str | None = None,
    progress: Callable[[str], Any] | None = None,
) -> Manifest:
    """Quantizes a classifier to int8 after training, and measures what that costs.

    Each runtime has a few settings that are worth a try: `vit_tf.deploy.quantizers`. All are applied with the
    same calibration images and measured on the same held-out images. Of those that lose at most `max_drop`
    points of accuracy, the fastest is kept; where the speed is equal within 5 %, the most accurate. Settings
    whose drop might exceed `max_drop` by chance, within one standard error, are kept only where all might.
    Test images take part in neither.

    Args:
        model_or_source: as of `vit_tf.export`; the model needs a head.
        path: the folder to write: the model's file and vit_tf.json, whose `quantization` is the report.
        data: a folder, zip or table of labelled images, see `vit_tf.data.find_images`; "cifar10",
            "cifar100", "sample" or an .npz, see `vit_tf.data.load_cifar`.
        runtime: "openvino", "onnxruntime", "litert" or "keras".
        max_drop: the largest loss of accuracy, in percentage points; of mean average precision for a model
            with several labels per image.
        calibration_images: int, the number of images to calibrate on.
        held_out: int, the number of images to measure accuracy on; by default all validation images, but at
            most 2,000.
        preprocessing: bool, whether to put the normalisation into the graph, see `vit_tf.export`.
        match: how classes of the data are matched with the model's labels: "name", "known" or "order", see
            `vit-tf evaluate --help`.
        max_bad: the allowed share of unreadable images.
        force: bool, whether to replace an exported folder at `path`.
        variant: name of the variant if `model_or_source` is a bare file of weights.
        progress: function that is called with a line of text per stage.

    Returns:
        The `Manifest` of the folder.

    Raises:
        ValueError: an argument is wrong, an extra is missing, there are no images, or all settings lose more
            than `max_drop` points; the message says what was tried. Nothing is left at `path`.
        OSError: the disk is full, or the folder cannot be written to.
    """
    check_settings(runtime, max_drop, calibration_images, held_out, preprocessing)
    check_new_folder(path, force)
    from vit_tf.deploy.calibration import choose_images
    from vit_tf.deploy.subject import open_subject

    say = progress or (lambda line: None)
    subject = open_subject(model_or_source, variant, preprocessing)
    if runtime == "keras":  # its file has no normalisation, also where the model has one inside
        subject = replace(subject, takes_pixels=False)
    found = f"{subject.variant!r} has the outputs {', '.join(subject.output_names)}"
    require(subject.output_names == ("logits",), f"{found}: quantization needs a model with one head")
    calibration, images = choose_images(
        data, subject, model_or_source, calibration_images, held_out, match, max_bad
    )
    with atomic_folder(path, force) as final:
        session = Session(runtime, subject, images, final.parent, say)
        say(
            f"{subject.variant}: {len(calibration):,} images to calibrate on, {len(images):,} {images.part} "
            "images to measure"
        )
        session.measure_float()
        session.try_all(calibration.stacked())
        kept = session.choose(max_drop)
        manifest = replace(
            kept.manifest,
            quantization={
                "runtime": runtime,
                "max_drop": max_drop,
                "calibration_images": len(calibration),
                "held_out_images": len(images),
                "held_out": images.part,
                **session.report(kept),
            },
        )
        for file in kept.folder.iterdir():
            file.rename(final / file.name)
        write_manifest(final, manifest)
    return manifest


def check_settings(runtime, max_drop, calibration_images, held_out=None, preprocessing=False):
    """Raises a ValueError for a wrong argument of `quantize` or a missing extra, without Keras."""
    check_choice("runtime", runtime, RUNTIMES)
    check_number("max_drop", max_drop, "[0, 100]")
    check_int("calibration_images", calibration_images, 1)
    check_int("held_out", held_out, 1, optional=True)
    if runtime == "keras" and preprocessing:
        raise ValueError("`preprocessing` is for exported graphs, and a .keras file takes normalised images")
    format, modules = RUNTIMES[runtime]
    modules = (*FORMATS[format].modules, *modules)
    require_modules(modules, FORMATS[format].extra, f"quantization for {runtime}")


@dataclass
class Trial:
    """A model that was written and measured.

    Args:
        name, settings: of the `Candidate`.
        folder: where its files are.
        manifest: its `Manifest`.
        results: dict: "score", "drop", "drop_error", "top1_agreement", "bytes", "speed_ratio"; empty before
            the measurement.
        float_layers: see `vit_tf.deploy.quantizers.candidates.float_layers`.
        error: text, why it could not be written or run.
    """

    name: str
    settings: dict[str, Any]
    folder: Path
    manifest: Manifest
    results: dict[str, Any] = field(default_factory=dict)
    float_layers: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    def summary(self):
        """Returns what was tried as a dict for JSON."""
        return {"name": self.name, "settings": self.settings, **self.results, "error": self.error}


class Session:
    """The float32 model of a runtime, and the quantized ones that are compared with it.

    Args:
        runtime: a key of `RUNTIMES`.
        subject: the `Subject` that is quantized.
        images: the `LabelledImages` to measure on.
        place: the folder for temporary files.
        say: function that is called with a line of text per stage.
    """

    def __init__(self, runtime, subject, images, place, say):
        self.runtime, self.subject, self.images, self.place, self.say = runtime, subject, images, place, say
        self.format = RUNTIMES[runtime][0]
        self.quantizer = import_module(f"vit_tf.deploy.quantizers.{runtime}_quantizer")
        self.file = FORMATS[self.format].file
        self.trials = []

    def measure_float(self):
        """Writes and measures the float32 model."""
        from vit_tf.deploy.quality import Quality

        folder = self.place / "float32"
        folder.mkdir()
        manifest = write_float(self.subject, folder, self.format, self.say)
        self.float = Trial("float32", {}, folder, manifest)
        self.quality = Quality(self.images)
        self.float.results = self.quality.measure(self.opened(self.float))
        self.float.results["bytes"] = size(folder)
        self.say(f"float32: {self.quality.metric} {self.float.results['score']:.2%}")

    def opened(self, trial):
        from vit_tf.deploy.runtimes import open_runtime

        return open_runtime(trial.folder, trial.manifest).run

    def try_all(self, calibration):
        """Writes and measures the model of each candidate. One of them at a time is in memory."""
        run_float = self.opened(self.float)
        for index, candidate in enumerate(self.quantizer.CANDIDATES):
            folder = self.place / f"int8_{index}"
            folder.mkdir()
            for precision in float_precisions(candidate, self.quantizer):
                trial = self.new_trial(candidate, folder, precision)
                self.say(f"int8: {trial.name}")
                try:
                    if not (folder / self.file).exists():
                        with disk_errors(folder):
                            self.quantizer.write(
                                candidate, self.subject, self.float.folder, calibration, folder / self.file
                            )
                    self.measure(trial, candidate, run_float)
                except (MemoryError, OSError):
                    raise
                except Exception as error:  # of the runtime's tool: others may serve
                    trial.error = brief(error, 300)
                self.say(f"  {outcome(trial, self.quality.metric)}")

    def measure(self, trial, candidate, run_float):
        """Measures the written model of a `Trial`, and its speed by turns with the float32 model."""
        from vit_tf.deploy.quality import compare_speed
        from vit_tf.deploy.quantizers.candidates import float_layers

        trial.float_layers = float_layers(candidate, self.quantizer.layers(trial.folder / self.file))
        run = self.opened(trial)
        results = {**self.quality.measure(run), "bytes": size(trial.folder)}
        runs = {"float32": run_float, "int8": run}
        seconds = compare_speed(runs, next(self.images.batches(SPEED_BATCH))[0])
        trial.results = {
            **results,
            "speed_ratio": seconds["float32"] / seconds["int8"],
            "milliseconds": 1e3 * seconds["int8"],
            "float_milliseconds": 1e3 * seconds["float32"],
        }

    def new_trial(self, candidate, folder, precision):
        """Adds and returns the `Trial` of a candidate whose layers in float have a precision."""
        name = candidate.name if precision == "float32" else f"{candidate.name}, {precision}"
        settings = {**candidate.settings, "float_precision": precision}
        manifest = replace(
            self.float.manifest,
            precision="int8",
            agreement={},
            quantization={"float_precision": precision},
            versions=self.float.manifest.versions
            | {tool: version(tool) for tool in RUNTIMES[self.runtime][1]},
        )
        self.trials.append(Trial(name, settings, folder, manifest))
        return self.trials[-1]

    def choose(self, max_drop):
        """Returns the best `Trial`.

        Raises:
            ValueError: all lose more than `max_drop` points.
        """
        accepted = [trial for trial in self.trials if not trial.error and trial.results["drop"] <= max_drop]
        if not accepted:
            tried = "; ".join(f"{trial.name}: {outcome(trial, self.quality.metric)}" for trial in self.trials)
            raise ValueError(
                f"int8 costs more than {max_drop:g} points on {self.runtime}, from {self.quality.metric} "
                f"{self.float.results['score']:.2%} of float32. Tried: {tried}. "
                "Give more calibration images, allow more with --max-drop, or take another runtime"
            )
        certain = [trial for trial in accepted if highest_drop(trial) <= max_drop]
        kept = certain or [min(accepted, key=highest_drop)]
        fastest = max(trial.results["speed_ratio"] for trial in kept)
        fast = [trial for trial in kept if trial.results["speed_ratio"] >= SAME_SPEED * fastest]
        return min(fast, key=lambda trial: (trial.results["drop"], -trial.results["top1_agreement"]))

    def report(self, kept):
        """Returns the measurements as a dict for JSON."""
        before, after = self.float.results, kept.results
        return {
            "name": kept.name,
            "settings": kept.settings,
            "float_precision": kept.settings["float_precision"],
            "metric": self.quality.metric,
            "before": before["score"],
            "after": after["score"],
            "drop": after["drop"],
            "drop_error": after["drop_error"],
            "top1_agreement": after["top1_agreement"],
            "bytes_before": before["bytes"],
            "bytes_after": after["bytes"],
            "speed_ratio": after["speed_ratio"],
            "milliseconds_before": after["float_milliseconds"],
            "milliseconds_after": after["milliseconds"],
            "float_layers": kept.float_layers,
            "tried": [trial.summary() for trial in self.trials],
        }


def float_precisions(candidate, quantizer):
    """Returns the precisions to try in the layers that stay in float."""
    return ("bfloat16", "float32") if candidate.half and quantizer.has_bfloat16() else ("float32",)


def highest_drop(trial):
    """Returns the drop of a `Trial` and its standard error together, in points."""
    return trial.results["drop"] + (trial.results["drop_error"] or 0)


def outcome(trial, metric):
    """Returns what became of a `Trial`, as text."""
    if trial.error:
        return f"failed ({trial.error})"
    results = trial.results
    change = round(-results["drop"], 2) + 0.0  # not -0
    return f"{metric} {results['score']:.2%}, {change:+.2f} points"


def size(folder):
    """Returns the bytes of a model's files."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".json")


def write_float(subject, folder, format, say):
    """Writes the float32 model in the format of a runtime, checked against Keras; returns its `Manifest`."""
    from vit_tf.deploy.exporting import LOWEST_OPSET, write_checked

    manifest = subject.describe(format, "float32")
    if format != "keras":
        opset = LOWEST_OPSET if format == "onnx" else None  # attention in products, for its quantizer
        return write_checked(subject.model, [subject], manifest, folder, opset, say)
    subject.model.save(folder / FORMATS["keras"].file)
    write_manifest(folder, manifest)
    return manifest
