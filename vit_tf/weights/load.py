"""Loading weights from any source into a model, completely or not at all.

Position tables of another grid are resampled in `vit_tf.weights.positions`.
"""

import os
import re
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from vit_tf.checks import brief, check_valid, listing, pair
from vit_tf.config import ViTConfig
from vit_tf.hub.config_values import MODEL_TYPES, config_value
from vit_tf.hub.keras_hub_preset import is_preset
from vit_tf.hub.lazy_tensor import LazyTensor
from vit_tf.hub.open_clip_folder import MODEL as OPEN_CLIP
from vit_tf.hub.sources import Checkpoint, open_checkpoint
from vit_tf.structure import ViTStructure
from vit_tf.variants import ALIASES, get_variant
from vit_tf.weights.claims import check_claims
from vit_tf.weights.fitting import (
    fit_channels,
    fit_patches,
    sampling_options,
    unfold_kernels,
)
from vit_tf.weights.formats import (
    backbones,
    dinov3_names,
    google,
    huggingface,
    keras_file,
    keras_hub,
    makers,
    open_clip_config,
    timm,
    torchvision,
    towers,
    transformers_config,
    vit_pytorch,
)
from vit_tf.weights.formats.timm import HEAD_TENSORS
from vit_tf.weights.load_report import LoadReport
from vit_tf.weights.naming import model_name, name_variant
from vit_tf.weights.positions import fit_positions
from vit_tf.weights.recognition import recognise
from vit_tf.weights.relative_tables import fit_relative_tables

# Tensors that training scripts save beside a ViT, and that no ViT uses.
FOREIGN = re.compile(
    r"(?:n_averaged|mask_token|logit_scale|logit_bias"
    r"|(?:criterion|loss|loss_fn|decoder|predictor|projector|dino_head|ibot_head|(?:train|val|test)_\w+"
    r"|decoder_\w+)(?:\..*)?)"
)
TEXT_TOWER = re.compile(r"(?:^|\.)token_embedding\.weight$")
RESNET = re.compile(r"(?:^|\.)layer1\.0\.conv1\.weight$")


@dataclass(frozen=True)
class TimmWeights:
    """A checkpoint with timm's names, as `open_weights` returns it."""

    checkpoint: Checkpoint
    format: str  # a key of `FORMATS`
    tensors: dict[str, LazyTensor]
    unused: tuple[str, ...]  # names in the file that no model uses

    @property
    def preprocessing_config(self):
        """The configuration of the preprocessing: preprocessor_config.json, else config.json, else None."""
        config = self.checkpoint.config
        known = "pretrained_cfg" in config or "model_type" in config
        return self.checkpoint.preprocessor or (config if known else None)

    def describe(self, variant: str | None = None) -> tuple[str, dict[str, Any]]:
        """Returns (variant, hyperparameters) for `build_vit`.

        With a `variant`, only the number of classes comes from the weights. Without a variant, both results
        come from config.json, and for a bare file from the shapes of its tensors, see `looks_like`.

        Raises:
            ValueError: the config.json describes no model, or one far larger than the weights; or a bare file
                has the shapes of no variant, or of several.
        """
        is_described = variant is None and self.checkpoint.config
        try:
            variant, fields = self.read_description(variant)
            if is_described:
                check_claims(get_variant(variant, **fields), self.tensors)
        except ValueError as error:
            raise ValueError(f"{self.checkpoint.source!r}: {error}") from error
        except (TypeError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
            problem = f"config.json is damaged ({brief(error)}), download it again, or name the variant"
            raise ValueError(f"{self.checkpoint.source!r}: {problem}") from error
        return variant, fields

    def read_description(self, variant: str | None) -> tuple[Any, dict[str, Any]]:
        fields, config = {}, self.checkpoint.config
        if variant is None and "vit_tf" in config:  # of a folder that vit_tf.classifier wrote
            description = config_value(config, "vit_tf", dict)
            variant = config_value(description, "variant", str)
            fields = config_value(description, "hyperparameters", dict, {})
        elif variant is None and "architecture" in config:
            variant, fields = timm.variant_from_config(config)
        elif variant is None and is_preset(config):
            fields = keras_hub.variant_from_config(config)
            variant, fields = name_variant(keras_hub.KINDS[config["class_name"]], fields)
        elif variant is None and OPEN_CLIP in config:
            variant, fields = open_clip_config.variant_from_config(config)
        elif variant is None and config:
            fields = transformers_config.variant_from_config(config)
            variant, fields = name_variant(config["model_type"], fields)
        elif variant is None:
            variant, fields = self.looks_like
        head = self.tensors.get("head.weight")
        if head is not None and (len(head.shape) != 2 or 0 in head.shape):
            raise ValueError(f"a head of shape {head.shape}, expected two dimensions")
        return variant, {**fields, "num_classes": 0 if head is None else head.shape[0]}

    @cached_property
    def looks_like(self) -> tuple[str, dict[str, Any]]:
        """(variant, fields) of weights without a config.json, see `recognise`.

        Raises:
            ValueError: no variant has weights of these shapes, or several have.

        Warns:
            UserWarning: always: the variant is a guess.
        """
        source = self.checkpoint.source
        try:
            variant, fields = recognise(self.tensors)
        except ValueError as error:
            hint = f"is a bare file, which names no variant: add --model NAME, or `variant` ({error})"
            raise ValueError(f"{source!r} {hint}") from error
        warnings.warn(f"{source!r} looks like {variant}: building that", stacklevel=2)
        return variant, fields

    def model_name(self, variant: str, fields: dict[str, Any]) -> str:
        """Returns the name of a model of this description. Models of transformers have no variant names."""
        config = self.checkpoint.config
        if {"vit_tf", "architecture"} & config.keys() or config.get("model_type") not in MODEL_TYPES:
            return ALIASES.get(variant, variant)
        return model_name(config["model_type"], variant, fields)

    def check_head(self, config: ViTConfig) -> None:
        """Raises a ValueError if the head of the weights does not fit the width of a model's features."""
        head, width = self.tensors.get("head.weight"), config.hidden_dim
        widths = (width, 2 * width)  # class token and mean joined
        if head is not None and head.shape[0] == config.num_classes and head.shape[1] not in widths:
            problem = f"the weights have a head of {head.shape[1]} features, the model {width}"
            raise ValueError(f"{self.checkpoint.source!r}: {problem}")

    def position_resampling(self, variant: str) -> dict[str, Any]:
        """Returns how `load_weights` resamples the position table for a variant, see `grid_matrices`."""
        return sampling_options(variant, self, None, None).positions

    def without_head(self) -> "TimmWeights":
        """Returns these weights without their heads, so that a model starts with new ones."""
        tensors = {name: t for name, t in self.tensors.items() if name not in HEAD_TENSORS}
        return replace(self, tensors=tensors)


FORMATS = {
    "dinov3": (dinov3_names.matches_makers, dinov3_names.from_makers),
    "huggingface_dinov3": (dinov3_names.matches_huggingface, dinov3_names.from_huggingface),
    "keras_hub": (keras_hub.matches, keras_hub.from_keras_hub),
    "google": (google.matches, google.from_google),
    "huggingface": (huggingface.matches, huggingface.from_huggingface),
    "siglip2": (towers.matches_siglip2, towers.from_towers),
    "huggingface_vision": (towers.matches, towers.from_towers),
    "torchvision": (torchvision.matches, torchvision.from_torchvision),
    "vit_pytorch": (vit_pytorch.matches, vit_pytorch.from_vit_pytorch),
    **makers.FORMATS,
    "timm": (timm.matches, timm.from_timm),  # the last, since some other formats have most of timm's names
}


def open_weights(source: str | os.PathLike, prefix: str | None = None) -> TimmWeights:
    """Opens a source and translates its names to timm's. Tensors are read later, on use.

    Args:
        source: see `load_weights`.
        prefix: str, keys and prefixes before the ViT's names, joined by dots, such as "teacher.backbone.".
            Defaults to where the patch embedding of a known format stands.

    Raises:
        ValueError: the source cannot be read, holds several ViTs, or its names belong to no known format.
    """
    checkpoint = open_checkpoint(source, prefix)
    for name, (matches, translate) in FORMATS.items():
        if matches(checkpoint.tensors):
            try:
                tensors, unused = translate(checkpoint.tensors)
            except (ValueError, IndexError, TypeError) as error:
                problem = f"has tensors that a {name} file does not have: {error}"
                raise ValueError(f"{checkpoint.source!r} {problem}") from error
            foreign = [name for name in tensors if FOREIGN.fullmatch(name)]
            tensors = {name: tensor for name, tensor in tensors.items() if name not in foreign}
            return TimmWeights(checkpoint, name, tensors, (*unused, *foreign))
    raise ValueError(f"{checkpoint.source!r} {unknown_format(checkpoint.tensors)}")


def unknown_format(names):
    """Returns what a message says of tensors by name that are not a ViT in a known format."""
    if any(RESNET.search(name) for name in names):  # also one of CLIP, beside a text tower
        return "holds a ResNet, expected a ViT"
    if any(TEXT_TOWER.search(name) for name in names):
        return (
            "holds a text tower and no vision tower: give the file of the whole model, or of its vision tower"
        )
    first = listing(sorted(names)[:5])
    return (
        "is not a ViT in a known format (timm's, Google's, transformers', torchvision's, OpenCLIP's, "
        f"vit-pytorch's or the makers'): its {len(names)} names begin with {first}"
    )


def open_named(source: str | os.PathLike, variant: str | None = None) -> TimmWeights:
    """Returns `open_weights(source)`.

    Raises:
        ValueError: the source cannot be read; or nobody names a variant, and its weights look like none, or
            like several.
    """
    weights = open_weights(source)
    if variant is None and not weights.checkpoint.config:
        weights.looks_like  # noqa: B018  # raises
    return weights


def load_weights(
    model: keras.Model,
    source: Any,
    strict: bool = True,
    *,
    method: str | None = None,
    antialias: bool | None = None,
    grid_size: Any = None,
) -> LoadReport:
    """Loads published weights into a model of `build_vit`, completely or not at all.

    The position table and the patch kernel are resampled if the image or patch size of the model and the
    source differ. RGB weights are adapted to other input channels: their sum for one channel, or the three in
    turn, scaled by 3 / channels. A head of another width is not loaded. The report lists all of this.

    Args:
        model: a model of `build_vit`.
        source: a file (`.safetensors`, `.npz`, `.pth`, `.pt`, `.bin`, `.ckpt`, `.pth.tar`, a
            `model.safetensors.index.json`, or `.weights.h5` of Keras), a folder with `config.json` and the
            weights, the folder of a run, `hf:owner/name`, a repository of the Hugging Face hub, or
            "cifar10", the small model that comes with the package. Names may be timm's, Google's,
            Hugging Face's, torchvision's, keras-hub's (the folder of a preset), vit-pytorch's, or those of
            the makers of CLIP, DINOv2, BEiT-3, AIMv2 and RADIO, under any keys and prefixes (see
            `open_weights`); or what `open_weights` returns.
        strict: bool. False loads the tensors that fit, and lists the others in the report.
        method: "bicubic" or "bilinear", for resampling. Defaults to what the library of the source's format
            does, and the report says which: timm's files "bicubic" with antialias; Google's, FlexiViT and
            RADIO (models that have a variant's name) "bilinear" without; transformers' "bicubic" without,
            but with it for DINOv2 with registers; DINOv2's makers' as transformers, with their offset of
            0.1. The patch kernel is resampled as timm does.
        antialias: bool, whether shrinking averages. Defaults to True with a `method`, else to what the
            format's own library does.
        grid_size: (rows, columns) of the source's position table. Defaults to the grid in its
            metadata or config.json, else to a square, else to the model's grid.

    Returns:
        A `LoadReport`.

    Raises:
        ValueError: the source cannot be read, or `strict` is true and names are missing or unexpected, or
            shapes differ. The model does not change then.

    Warns:
        UserWarning: a tensor holds NaN or infinity.
    """
    check_valid("model", model, isinstance(model, keras.Model), "a model of `build_vit`")
    if str(source).endswith(".weights.h5"):
        if not strict or (method, antialias, grid_size) != (None, None, None):
            raise ValueError("a .weights.h5 file fits its own model alone: load it without other options")
        return keras_file.load(model, Path(source))
    grid_size = None if grid_size is None else pair(grid_size, "grid_size")
    weights = source if isinstance(source, TimmWeights) else open_weights(source)
    mappings = timm.weight_mappings(model)
    report = LoadReport(weights.checkpoint.source, weights.format, unused=list(weights.unused))
    report.prefix, report.left = weights.checkpoint.prefix, list(weights.checkpoint.left)
    tensors = dict(weights.tensors)
    if "dist_token" not in mappings and "reg_token" in mappings and "reg_token" not in tensors:
        # A distillation token without a head, as in transformers' plain DeiT, is a register.
        tensors = {"reg_token" if name == "dist_token" else name: t for name, t in tensors.items()}
    if weights.format == "clip" and "fc_norm.weight" in mappings:  # the names do not tell where the norm is
        tensors = {re.sub(r"^norm\.", "fc_norm.", name): t for name, t in tensors.items()}
    tensors = drop_unused_heads(tensors, mappings, report)
    if strict:
        backbones.check_backbone(report.source, tensors, model.name, mappings)
    sampling = sampling_options(model.name, weights, method, antialias)
    tensors = unfold_kernels(tensors, mappings)
    tensors = fit_channels(tensors, mappings, report)
    tensors = fit_patches(tensors, mappings, sampling, report)
    tensors = fit_positions(tensors, ViTStructure(model).patch_encoder, weights, sampling, grid_size, report)
    tensors = fit_relative_tables(tensors, mappings, ViTStructure(model), weights, grid_size, report)
    loadable = compare(tensors, mappings, report)
    if strict and report.errors:
        problem = f"{report.source!r} ({report.format}) does not fit {model.name!r}"
        raise ValueError(f"{problem}; {report.errors}. {advice(weights)}")
    assign(loadable, tensors, mappings, report)
    return report


def advice(weights):
    """Returns advice for weights that do not fit."""
    if weights.checkpoint.config:
        return "`build_vit(weights=...)` without a variant builds what its config.json describes"
    return "Name the variant of the weights; `strict=False` loads the tensors that fit"


def drop_unused_heads(tensors, mappings, report):
    """Returns the tensors without heads that the model lacks, or has with another width."""
    head, expected = tensors.get("head.weight"), mappings.get("head.weight")
    if expected is not None:
        report.new_head = head is None or (len(head.shape) == 2 and head.shape[0] != expected.shape[0])
    loses_head = report.new_head or expected is None
    unused = [name for name in HEAD_TENSORS if name in tensors and expected is None]
    # The layer between features and head of the first ViTs is dropped with the head.
    prefixes = ("pre_logits.",) * loses_head + ("attn_pool.",) * ("attn_pool.latent" not in mappings)
    unused += [name for prefix in prefixes for name in tensors if name.startswith(prefix)]
    report.unused += unused
    dropped = {*unused, *(HEAD_TENSORS if loses_head else ())}
    return {name: tensor for name, tensor in tensors.items() if name not in dropped}


def compare(tensors, mappings, report):
    """Sorts the names into the report; returns those that can be loaded."""
    loadable = []
    for name, mapping in mappings.items():
        tensor = tensors.get(name)
        if tensor is None:
            if not (report.new_head and name in HEAD_TENSORS):
                report.missing.append(name)
        elif tensor.shape != mapping.shape:
            report.shape_mismatches.append(f"{name}: {tensor.shape} in the source, {mapping.shape} here")
        elif tensor.kind != "f":
            report.shape_mismatches.append(f"{name}: values of NumPy's kind {tensor.kind!r}, floats here")
        else:
            loadable.append(name)
    report.unexpected += [name for name in tensors if name not in mappings]
    return loadable


def assign(names, tensors, mappings, report):
    """Reads the tensors one by one into the variables, so only one is in memory besides the model."""
    for name in names:
        array = tensors[name].load()
        # A finite sum implies finite values, so most values are not checked one by one.
        with np.errstate(all="ignore"):
            suspicious = not np.isfinite(np.sum(array))
        if suspicious and not np.isfinite(array).all():
            report.not_finite.append(name)
        mappings[name].variable.assign(mappings[name].to_keras(array))
        report.loaded.append(name)
    if report.not_finite:
        warnings.warn(
            f"{report.source!r} holds NaN or infinity in {listing(report.not_finite)}: the model will, too",
            stacklevel=3,
        )
