"""Who takes part in `benchmarks/speed.py`, and what a worker process is told to build.

A module a library, whose `build(job, **options)` returns a `Built`; it runs in a process of its own, and no
other module imports the library. What they share is in `keras_models` and `convert`. `worker` and `pool` are
the two sides of the processes, `tables` and `figure` show the results.
"""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

SERVING = ("inference", "resolution")
FITTING = ("inference", "training", "resolution")
ALL_VITS = (*FITTING, "families")
BOTH = ("float32", "bfloat16")


@dataclass(frozen=True)
class Dimensions:
    """Of a plain ViT with a class token and biases everywhere."""

    patch_size: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    num_classes: int = 1000


@dataclass(frozen=True)
class Job:
    """What a worker builds.

    Args:
        kind: "inference", "training", "families", "resolution", "tutorial" or "limit".
        precision: "float32" or "bfloat16".
        batch_sizes: tuple of int; in "limit" the sides of the matrices.
        image_size: int, side in pixels.
        dimensions: `Dimensions`; None in "tutorial" and "limit", which have their own.
        batches: int, how many batches one call works through.
        variant: str, the name of the variant in "families".
    """

    kind: str
    precision: str
    batch_sizes: tuple
    image_size: int = 0
    dimensions: Dimensions | None = None
    batches: int = 1
    variant: str = ""


@dataclass(frozen=True)
class Built:
    """A model in a worker's memory.

    Args:
        make_step: function from a batch size to a function without arguments, which does one call, waits
            until it is done, and returns the output or the loss.
        parameters: int.
    """

    make_step: Callable
    parameters: int


@dataclass(frozen=True)
class Contestant:
    """One way to run a ViT.

    Args:
        label: str, its name in the tables.
        module: the name of the module that builds it.
        needs: names of packages, without which it is skipped.
        kinds, precisions: what it can do.
        options: dict, keyword arguments of the module's `build`.
        environment: dict, of its process.
        slow_build: bool, whether compiling takes so long that by default the first model is enough.
    """

    label: str
    module: str
    needs: tuple
    kinds: tuple = FITTING
    precisions: tuple = BOTH
    options: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    slow_build: bool = False

    @property
    def is_ours(self):
        own_modules = ("contestants.ours", "contestants.preset")
        return self.module in own_modules or self.options.get("exported", False)


XLA = {"xla": True}
CONTESTANTS = {
    "ours": Contestant("vit_tf, TensorFlow", "contestants.ours", ("tensorflow",), ALL_VITS),
    "ours-plain": Contestant(
        "vit_tf, TensorFlow, the plain ViT of this size",
        "contestants.ours",
        ("tensorflow",),
        ("families",),
        options={"plain": True},
    ),
    "ours-xla": Contestant("vit_tf, TensorFlow, XLA", "contestants.ours", ("tensorflow",), options=XLA),
    "ours-jax": Contestant(
        "vit_tf, JAX", "contestants.ours", ("jax",), environment={"KERAS_BACKEND": "jax"}, slow_build=True
    ),
    "keras-hub": Contestant("keras-hub, TensorFlow", "contestants.keras_hub", ("keras_hub",)),
    "keras-hub-xla": Contestant(
        "keras-hub, TensorFlow, XLA", "contestants.keras_hub", ("keras_hub",), options=XLA, slow_build=True
    ),
    "zeromodels": Contestant("zeromodels, TensorFlow", "contestants.zeromodels", ("zeromodels",)),
    "textbook": Contestant("textbook Keras layers, TensorFlow", "contestants.textbook", ("tensorflow",)),
    "timm": Contestant("timm, PyTorch eager", "contestants.timm", ("timm",), ALL_VITS),
    "timm-compile": Contestant(
        "timm, torch.compile", "contestants.timm", ("timm",), options={"compiled": True}, slow_build=True
    ),
    "openvino": Contestant("OpenVINO, from timm", "contestants.openvino", ("openvino", "timm"), SERVING),
    "onnxruntime": Contestant(
        "ONNX Runtime, from timm",
        "contestants.onnxruntime",
        ("onnxruntime", "onnx", "onnxscript", "timm"),
        SERVING,
        ("float32",),
    ),
    "openvino-ours": Contestant(
        "OpenVINO, from vit_tf",
        "contestants.openvino",
        ("openvino", "tensorflow"),
        SERVING,
        options={"exported": True},
    ),
    "onnxruntime-ours": Contestant(
        "ONNX Runtime, from vit_tf",
        "contestants.onnxruntime",
        ("onnxruntime", "onnx", "tensorflow"),
        SERVING,
        ("float32",),
        options={"exported": True},
    ),
    "tutorial": Contestant(
        "the Keras tutorial's code, fit", "contestants.tutorial", ("tensorflow",), ("tutorial",)
    ),
    "preset-fit": Contestant(
        "vit_cifar10_tutorial, fit", "contestants.preset", ("tensorflow",), ("tutorial",)
    ),
    "preset-loop": Contestant(
        "vit_cifar10_tutorial, train_cifar10.py's loop",
        "contestants.preset",
        ("tensorflow",),
        ("tutorial",),
        options={"own_loop": True},
    ),
}
GEMM = Contestant("matrix product", "contestants.gemm", ("tensorflow",), ("limit",))
RESOLUTION_DEFAULT = ("ours", "keras-hub", "timm")  # the others can, too: name them by --contestants


def why_not(contestant, precision):
    """Returns the sentence that says why a contestant cannot be measured here, None where it can."""
    missing = [package for package in contestant.needs if importlib.util.find_spec(package) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if contestant.options.get("compiled") and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "torch.compile needs a C++ compiler, and there is none"
    if precision not in contestant.precisions:
        return f"has no {precision} on a CPU"
    return None
