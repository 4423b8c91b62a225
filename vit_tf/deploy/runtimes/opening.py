"""Choosing and opening the runtime of an exported folder."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_tf.checks import brief, check_choice, check_int, shown
from vit_tf.cores import num_cores
from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.extras import require_modules
from vit_tf.deploy.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from vit_tf.deploy.runtimes.interface import Runtime

AUTO = "auto"


@dataclass(frozen=True)
class RuntimeEntry:
    """A runtime: which formats it reads, and what must be installed.

    Args:
        formats: keys of `FORMATS`. Keras also takes models in memory and sources of weights.
        module: the module that must be installed.
        extra: the extra of vit_tf that installs the module; None for what vit_tf itself requires.
        class_name: the `Runtime` in the module of `vit_tf.deploy.runtimes` with the runtime's name.
    """

    formats: tuple[str, ...]
    module: str
    extra: str | None
    class_name: str


# In the order in which `auto` tries them.
RUNTIMES = {
    "openvino": RuntimeEntry(("openvino", "onnx", "web"), "openvino", "openvino", "OpenVinoRuntime"),
    "onnxruntime": RuntimeEntry(("onnx", "web"), "onnxruntime", "onnx", "OnnxRuntime"),
    "litert": RuntimeEntry(("litert",), "ai_edge_litert", "litert", "LiteRtRuntime"),
    "savedmodel": RuntimeEntry(("savedmodel",), "tensorflow", None, "SavedModelRuntime"),
    "keras": RuntimeEntry(("keras",), "keras", None, "KerasFileRuntime"),
}


def open_runtime(
    folder: str | Path,
    manifest: Manifest | None = None,
    runtime: str | None = None,
    threads: int | None = None,
) -> "Runtime":
    """Opens an exported folder with a runtime.

    Args:
        folder: what `vit_tf.export` wrote.
        manifest: its `Manifest`; None reads it.
        runtime: a key of `RUNTIMES`; "auto" for the fastest installed one that reads the folder; None for
            the runtime of the folder's format, with which the export was checked.
        threads: int, the number of threads that compute. Default: the number of cores of this process.

    Returns:
        A `Runtime`.

    Raises:
        ValueError: the runtime is unknown, is not installed or does not read the format, or the folder is
            damaged.
    """
    manifest = manifest or read_manifest(folder)
    check_int("threads", threads, 1, optional=True)
    name = choose_runtime(manifest, runtime)
    main, *others = (Path(folder) / file for file in FORMATS[manifest.format].files)
    for file in (main, *others):
        if not file.is_file():
            inside = file.relative_to(folder)
            raise ValueError(f"{str(folder)!r} is incomplete: it has no {inside}; export the model again")
    opened = getattr(import_module(f"vit_tf.deploy.runtimes.{name}"), RUNTIMES[name].class_name)
    try:
        return opened(main, manifest, threads or num_cores())
    except MemoryError:
        raise
    except Exception as error:  # the runtimes have errors of their own kinds
        problem = f"{str(main)!r} cannot be opened by {name}: {brief(error, 300)}"
    raise ValueError(f"{problem}; if the file is damaged, export the model again")


def choose_runtime(manifest: Manifest, runtime: str | None = None) -> str:
    """Returns the name of the runtime for a folder, see `open_runtime`.

    Raises:
        ValueError: the runtime is unknown, is not installed or does not read the format.
    """
    check_choice("runtime", runtime, (*RUNTIMES, AUTO), optional=True)
    own = FORMATS[manifest.format].runtime
    readers = [name for name, entry in RUNTIMES.items() if manifest.format in entry.formats]
    if runtime == AUTO:
        # A quantizer works for one runtime: others may compute the same file slowly, or not at all. The
        # operator that decodes images is ONNX Runtime's.
        candidates = [own] if manifest.quantization or manifest.input_kind == "encoded" else readers
        runtime = next((name for name in candidates if is_installed(name)), None)
    elif runtime is not None and runtime not in readers:
        raise ValueError(
            f"{runtime} does not read the format {manifest.format!r}: choose {' or '.join(readers)}, or "
            "export the model in another format"
        )
    name = runtime or own
    require_installed(name)
    return name


def choose_keras(source: Any, runtime: str = AUTO) -> str:
    """Returns "keras", the runtime of models in memory and of sources of weights.

    Raises:
        ValueError: another runtime than "keras" or "auto".
    """
    check_choice("runtime", runtime, (*RUNTIMES, AUTO))
    if runtime not in ("keras", AUTO):
        raise ValueError(
            f"{runtime} reads folders of `vit-tf export`, and {shown(source)} is none: export it first, or "
            "choose the runtime 'keras'"
        )
    require_installed("keras")
    return "keras"


def is_installed(runtime: str) -> bool:
    """Whether the module of a runtime is installed."""
    return find_spec(RUNTIMES[runtime].module) is not None


def require_installed(runtime: str) -> None:
    """Raises a ValueError that names the extra to install unless a runtime is installed."""
    entry = RUNTIMES[runtime]
    require_modules([entry.module], entry.extra, f"the runtime {runtime!r}")
