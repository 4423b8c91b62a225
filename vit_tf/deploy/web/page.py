"""Writes a static page that runs a model in the browser."""

import os
import shutil
from pathlib import Path
from typing import Any

from vit_tf.checks import require
from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.manifest import Manifest
from vit_tf.deploy.onnx import write_onnx
from vit_tf.deploy.web.runtime_files import WEBASSEMBLY, load_runtime_files
from vit_tf.files import write_json
from vit_tf.labels import REGRESSION
from vit_tf.predictions import check_labels
from vit_tf.structure import PATCHES, ViTStructure

ASSETS = Path(__file__).parent / "assets"
PAGE_ENDINGS = (".html", ".css", ".js")
RUNTIME_FOLDER = "onnxruntime"
RUNTIME_SCRIPT = "ort.wasm.bundle.min.js"  # not .mjs, which not every web server knows as JavaScript
RUNTIME_LICENSE = "onnxruntime_license.txt"
PAGE = "page.json"
ATTENTION = "attention"  # the output's name in the graph
MOST_ATTENTION = 256 << 20  # bytes
DEFAULT_OPSET = 20


def write(
    model: Any,
    manifest: Manifest,
    folder: Path,
    opset: int | None = None,
    onnxruntime_web: str | os.PathLike | None = None,
) -> None:
    """Writes everything but vit_tf.json into a folder, for `vit_tf.export`.

    This is the page itself, model.onnx with the attention of the last block as an additional output, the
    files of ONNX Runtime Web, and page.json with what the page needs beside vit_tf.json.

    Args:
        model: a model of `build_vit`. Without a head, the page shows the attention alone.
        manifest: the `Manifest`, without the agreement.
        folder: an existing folder.
        opset: int, the version of ONNX's operators; 20 by default.
        onnxruntime_web: a local copy of the npm package onnxruntime-web; by default npm downloads it once.

    Raises:
        ValueError: ONNX Runtime Web is not available, the model cannot be written as ONNX, or it is too large
            for a browser.
        OSError: the disk is full, or the folder cannot be written to.
    """
    runtime = load_runtime_files(onnxruntime_web)  # first, since there may be no network
    path = folder / FORMATS["web"].file
    preprocessing = manifest.make_preprocessing() if manifest.input_kind == "uint8" else None
    structure = ViTStructure(model)
    layout = attention_layout(structure)
    opset, watches = opset or DEFAULT_OPSET, layout is not None
    write_onnx(model, path, manifest.precision, opset, preprocessing, attention_output=watches)
    is_whole = not path.with_name(f"{path.name}.data").exists()
    require(is_whole, f"{manifest.variant} is too large for a browser: try --precision float16")
    for asset in ASSETS.iterdir():
        if asset.suffix in PAGE_ENDINGS:
            shutil.copyfile(asset, folder / asset.name)
    runtime_folder = folder / RUNTIME_FOLDER
    runtime_folder.mkdir()
    (runtime_folder / RUNTIME_SCRIPT).write_bytes(runtime.script)
    (runtime_folder / WEBASSEMBLY).write_bytes(runtime.webassembly)
    shutil.copyfile(ASSETS / RUNTIME_LICENSE, runtime_folder / "LICENSE.txt")
    page = {
        "labels": page_labels(structure, manifest),
        "attention": layout,
        "onnxruntime_web": runtime.version,
    }
    write_json(folder / PAGE, page)


def page_labels(structure: ViTStructure, manifest: Manifest) -> list[str]:
    """Returns a name per logit; two for a single logit with two labels; none for a model without a head."""
    if not structure.heads:
        return []
    labels = manifest.labels
    if labels is None and manifest.problem_type == REGRESSION:
        labels = tuple(f"value {i}" for i in range(manifest.num_outputs))
    return list(check_labels(labels, manifest.num_outputs, manifest.problem_type != REGRESSION))


def attention_layout(structure: ViTStructure) -> dict[str, Any] | None:
    """Returns where the tokens lie in the attention of the last block, for attention.js.

    The page shows the row of the class token, or the mean of the rows of the patches. None stands for an
    attention that is too large for a browser.
    """
    last = list(structure.blocks.values())[-1]
    if 4 * last.config.num_heads * structure.num_tokens**2 > MOST_ATTENTION:
        return None
    slices = structure.token_slices
    queries = slices.get("class_token", slices[PATCHES])
    sides = zip(structure.patched_size, structure.image_size)
    return {
        "output": ATTENTION,
        "query": "the class token" if "class_token" in slices else "the average patch",
        "queries": [queries.start, queries.stop],
        "patches": [slices[PATCHES].start, slices[PATCHES].stop],
        "grid": list(structure.grid_size),
        "covered": [min(patched / whole, 1.0) for patched, whole in sides],
    }
