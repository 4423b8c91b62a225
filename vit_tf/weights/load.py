"""Weights into a model: from any source, whole or not at all."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from vit_tf.files import atomic_path
from vit_tf.weights import google, huggingface, resample, timm, vit_pytorch
from vit_tf.weights.checkpoint import Checkpoint, Tensor, open_checkpoint

HEADS = ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")


@dataclass(frozen=True)
class Weights:
    """A checkpoint under timm's names, which `open_weights` returns."""

    checkpoint: Checkpoint
    format: str  # "timm", "google", "huggingface" or "vit_pytorch"
    tensors: dict[str, Tensor]
    unused: tuple[str, ...]  # names of the file that no model has a use for

    @property
    def preprocessing_config(self):
        """What says how its images were made: preprocessor_config.json, else config.json, else None."""
        config = self.checkpoint.config
        return self.checkpoint.preprocessor or (config if "pretrained_cfg" in config else None)

    def describe(self, variant=None):
        """Returns (variant, hyperparameters) for `build_vit`.

        A `variant` that is given keeps all its own, but for the number of classes, which is that of the
        weights. Without one the config.json tells both; a bare file cannot.
        """
        fields, config = {}, self.checkpoint.config
        if variant is None and "architecture" in config:
            variant, fields = timm.variant_from_config(config)
        elif variant is None and config:
            variant, fields = "vit_base_patch16_224", huggingface.variant_from_config(config)
        head = self.tensors.get("head.weight")
        return variant, {**fields, "num_classes": 0 if head is None else head.shape[0]}


@dataclass
class LoadReport:
    """What `load_weights` did with each name. Names are timm's, to which all formats are translated."""

    source: str
    format: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # of the model, not in the source
    unexpected: list[str] = field(default_factory=list)  # of the source, not in the model
    misshapen: list[str] = field(default_factory=list)  # "name: (shape) in the source, (shape) here"
    resampled: list[str] = field(default_factory=list)  # "name: what became what"
    new_head: bool = False  # the head stayed at its random start: the source has none of its width
    unused: list[str] = field(default_factory=list)  # known parts without a place here, such as a pooler
    not_finite: list[str] = field(default_factory=list)  # tensors that hold NaN or infinity

    @property
    def faults(self):
        """The names that do not fit, as one text; "" when all fit."""
        parts = []
        for kind in ("missing", "unexpected", "misshapen"):
            names = getattr(self, kind)
            if names:
                more = f" and {len(names) - 10} more" if len(names) > 10 else ""
                parts.append(f"{len(names)} {kind}: {', '.join(names[:10])}{more}")
        return "; ".join(parts)

    def __str__(self):
        lines = [f"{len(self.loaded)} tensors from {self.source} ({self.format})"]
        lines += [f"  resampled {text}" for text in self.resampled]
        if self.new_head:
            lines.append("  the head is new: it starts at random")
        if self.unused:
            lines.append(f"  not used: {', '.join(self.unused)}")
        if self.not_finite:
            lines.append(f"  NaN or infinity in: {', '.join(self.not_finite)}")
        return "\n".join(lines + ([f"  {self.faults}"] if self.faults else []))


FORMATS = {
    "google": (google.recognises, google.from_google),
    "huggingface": (huggingface.recognises, huggingface.from_huggingface),
    "vit_pytorch": (vit_pytorch.recognises, vit_pytorch.from_vit_pytorch),
    "timm": (lambda names: "patch_embed.proj.weight" in names, timm.from_timm),
}


def open_weights(source, patch_size=(16, 16)):
    """Opens a source and translates its names to timm's; no tensor is read before it is needed.

    Args:
        source: see `load_weights`.
        patch_size: (height, width), for files whose patches are flat and not square.

    Raises:
        ValueError: the source cannot be read, or its names belong to no known format.
    """
    checkpoint = open_checkpoint(source)
    for name, (recognises, translate) in FORMATS.items():
        if recognises(checkpoint.tensors):
            try:
                tensors, unused = translate(checkpoint.tensors, patch_size)
            except (ValueError, IndexError) as error:
                raise ValueError(
                    f"{checkpoint.source!r} has tensors of shapes that a {name} file has not: {error}"
                ) from error
            return Weights(checkpoint, name, tensors, tuple(unused))
    first = ", ".join(sorted(checkpoint.tensors)[:5])
    raise ValueError(
        f"{checkpoint.source!r} is no ViT of a known format (timm, Google's npz, Hugging Face ViT, DeiT "
        f"and DINOv2, vit-pytorch): its {len(checkpoint.tensors)} names begin with {first}"
    )


def load_weights(model, source, strict=True, *, method=None, antialias=None, grid_size=None):
    """Loads published weights into a model of `build_vit`: all of them, or none.

    The position table and the patch kernel are resampled when the model's image or patch size is
    another than the source's. A head of another width is left as it is, and the report says so.

    Args:
        model: a model of `build_vit`.
        source: a file (`.safetensors`, `.npz`, `.pth`, `.pt`, `.bin`, or `.weights.h5` of Keras), a folder
            with `config.json` and the weights, or `hf:owner/name`, a repository of the Hugging Face
            hub. Names may be timm's, Google's, Hugging Face's or vit-pytorch's.
        strict: bool. False loads what fits, and returns the rest in the report.
        method: "bicubic" or "bilinear", for resampling. Defaults to what timm takes: "bilinear"
            without antialias for Google's files and for models named after FlexiViT or RADIO, else
            "bicubic" with it.
        antialias: bool, see `method`.
        grid_size: (rows, columns) of the source's position table. Defaults to what its config.json
            says, else to the model's own when their counts agree, else to a square.

    Returns:
        A `LoadReport`.

    Raises:
        ValueError: the source cannot be read, or names are missing, unexpected or misshapen and
            `strict` is true. The model is then as it was.

    Warns:
        UserWarning: a tensor holds NaN or infinity.
    """
    if str(source).endswith(".weights.h5"):
        return load_keras_weights(model, Path(source))
    entries = timm.model_entries(model)
    weights = source
    if not isinstance(source, Weights):
        weights = open_weights(source, entries["patch_embed.proj.weight"].shape[2:])
    report = LoadReport(weights.checkpoint.source, weights.format, unused=list(weights.unused))
    sampling = sampling_options(model, weights.format, method, antialias)
    tensors = dict(weights.tensors)
    if "dist_token" not in entries and "reg_token" in entries and "reg_token" not in tensors:
        # A distillation token that no head reads, as in transformers' plain DeiT, is a register.
        tensors = {"reg_token" if name == "dist_token" else name: t for name, t in tensors.items()}
    tensors = set_heads_apart(tensors, entries, report)
    tensors = fit_sizes(tensors, entries, model, weights, sampling, grid_size, report)
    fitting = compare(tensors, entries, report)
    if strict and report.faults:
        raise ValueError(
            f"{report.source!r} ({report.format}) does not fit {model.name!r}; {report.faults}. "
            "Build the model that it was made for, or load what fits with `strict=False`"
        )
    assign(fitting, tensors, entries, report)
    return report


def set_heads_apart(tensors, entries, report):
    """Returns the tensors without heads that the model has not, or has of another width."""
    tensors = dict(tensors)
    has_head = "head.weight" in entries
    for name in HEADS:
        if name in tensors and not has_head:
            report.unused.append(name)
            del tensors[name]
    theirs, ours = tensors.get("head.weight"), entries.get("head.weight")
    if has_head and (theirs is None or theirs.shape[0] != ours.shape[0]):
        report.new_head = True
        tensors = {name: tensor for name, tensor in tensors.items() if name not in HEADS}
    if report.new_head or not has_head:
        # The layer between features and head of the first ViTs goes with their head.
        for name in [name for name in tensors if name.startswith("pre_logits.")]:
            report.unused.append(name)
            del tensors[name]
    if "attn_pool.latent" not in entries:
        for name in [name for name in tensors if name.startswith("attn_pool.")]:
            report.unused.append(name)
            del tensors[name]
    return tensors


def sampling_options(model, source_format, method, antialias):
    """Returns the options of resampling: the user's, else timm's for this format and model."""
    bilinear = source_format == "google" or "flexivit" in model.name or "radio" in model.name
    method = method or ("bilinear" if bilinear else "bicubic")
    resample.check_method(method)
    return {"method": method, "antialias": not bilinear if antialias is None else antialias}


def fit_sizes(tensors, entries, model, weights, sampling, grid_size, report):
    """Returns the tensors with the position table and the patch kernel in the model's sizes."""
    tensors = dict(tensors)
    patch, entry = tensors.get("patch_embed.proj.weight"), entries["patch_embed.proj.weight"]
    if patch is not None and len(patch.shape) == 4 and patch.shape[2:] != entry.shape[2:]:
        report.resampled.append(f"patch_embed.proj.weight: {patch.shape[2:]} to {entry.shape[2:]}")
        if "patch_embed.norm_in.weight" in tensors:
            raise ValueError(
                f"{report.source!r} has patches of {patch.shape[2:]} and the model of {entry.shape[2:]}: "
                "with a norm of the cut pixels they cannot be resampled"
            )
        tensors["patch_embed.proj.weight"] = resampled_patch(patch, entry.shape[2:], sampling)
    encoder = model.get_layer("patch_encoder")
    table = tensors.get("pos_embed")
    if table is None or len(table.shape) != 3:
        return tensors
    prefix = encoder.num_prefix_positions
    count = table.shape[1] - prefix
    old = source_grid(count, encoder.grid_size, weights, patch, grid_size)
    if old is not None and tuple(old) != encoder.grid_size:
        report.resampled.append(f"pos_embed: {tuple(old)} to {encoder.grid_size}")
        corners = any(name in model.name for name in ("base_patch16_radio_v3", "huge_patch16_radio_v3"))
        new, options = encoder.grid_size, {**sampling, "align_corners": corners}
        shape = (1, prefix + new[0] * new[1], table.shape[2])
        tensors["pos_embed"] = table.map(
            lambda x: resample.resample_positions(x, old, new, prefix, **options), shape
        )
    return tensors


def resampled_patch(patch, new_size, sampling):
    def function(x):
        kernel = resample.resample_patch_kernel(x.transpose(2, 3, 1, 0), new_size, **sampling)
        return kernel.transpose(3, 2, 0, 1)

    return patch.map(function, (*patch.shape[:2], *new_size))


def source_grid(count, model_grid, weights, patch, given):
    """Returns (rows, columns) of a table of `count` patches, None when no rectangle can be told."""
    if given is not None:
        if len(given) != 2 or given[0] * given[1] != count:
            raise ValueError(f"`grid_size={given!r}` does not have the {count} patches of the source's table")
        return tuple(given)
    config = weights.checkpoint.config
    size = config.get("pretrained_cfg", {}).get("input_size", ())[1:] or config.get("image_size")
    if size and patch is not None and len(patch.shape) == 4:
        size = (size, size) if isinstance(size, int) else size
        grid = tuple(side // p for side, p in zip(size, patch.shape[2:]))
        if grid[0] * grid[1] == count:
            return grid
    if model_grid[0] * model_grid[1] == count:
        return model_grid
    side = round(count**0.5) if count > 0 else 0
    return (side, side) if side and side * side == count else None


def compare(tensors, entries, report):
    """Sorts the names into the report; returns those that can be loaded."""
    fitting = []
    for name, entry in entries.items():
        if name not in tensors:
            if not (report.new_head and name in HEADS):
                report.missing.append(name)
        elif tensors[name].shape != entry.shape:
            report.misshapen.append(f"{name}: {tensors[name].shape} in the source, {entry.shape} here")
        else:
            fitting.append(name)
    report.unexpected += [name for name in tensors if name not in entries]
    return fitting


def assign(names, tensors, entries, report):
    """Reads the tensors one by one into the variables, so that memory holds one besides the model."""
    for name in names:
        array = tensors[name].load()
        # A finite sum means finite values; the values are looked at only where it is not.
        with np.errstate(all="ignore"):
            suspicious = not np.isfinite(np.sum(array))
        if suspicious and not np.isfinite(array).all():
            report.not_finite.append(name)
        entries[name].variable.assign(entries[name].to_ours(array))
        report.loaded.append(name)
    if report.not_finite:
        warnings.warn(
            f"{report.source!r} holds NaN or infinity in {', '.join(report.not_finite[:10])}: "
            "the model will, too",
            stacklevel=3,
        )


def load_keras_weights(model, path):
    """Loads a `.weights.h5` file that a model of the same shape saved."""
    if not path.is_file():
        raise ValueError(f"no weights at {str(path)!r}: there is no such file")
    try:
        with warnings.catch_warnings():
            # Keras only warns where layers find no weights in the file.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise ValueError(
            f"the weights in {str(path)!r} do not fit {model.name}: build the model with the variant "
            f"and the options that saved them ({' '.join(str(error).split())[:300]})"
        ) from error
    return LoadReport(str(path), "keras", [variable.path for variable in model.weights])


def save_weights(model, path, format="timm"):
    """Writes a model's weights under another library's names, whole or not at all.

    Args:
        model: a model of `build_vit`.
        path: a path that ends in .safetensors.
        format: "timm": `timm.create_model(name, checkpoint_path=path)` loads it strictly.

    Returns:
        The path.

    Raises:
        ValueError: another format or ending, no such folder, or weights that timm has no name for.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    if format != "timm":
        raise ValueError(f'`format` must be "timm", got {format!r}')
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors, got {str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"no folder {str(path.parent)!r} to write {path.name!r} into: make it first")
    arrays = {}
    for name, entry in timm.model_entries(model).items():
        array = keras.ops.convert_to_numpy(entry.variable.value)
        arrays[name] = np.ascontiguousarray(entry.to_timm(array))
    with atomic_path(path) as partial:
        save_file(arrays, partial, metadata={"format": "pt"})
    return path
