"""The public names: which there are, and that all that is written about them leads to them."""

import importlib
import inspect
import pkgutil
import re

import keras
import pytest
from support.paths import ROOT

import vit_tf
from vit_tf.data.augment import batch

PACKAGES = ["vit_tf"] + [
    module.name for module in pkgutil.walk_packages(vit_tf.__path__, "vit_tf.") if module.ispkg
]
FILES = [
    *sorted((ROOT / "vit_tf").rglob("*.py")),
    *sorted((ROOT / "scripts").rglob("*.py")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "README.md",
]


def test_public_names():
    assert sorted(vit_tf.__all__) == [
        "Predictor",
        "attention_distance",
        "attention_maps",
        "attention_rollout",
        "build_vit",
        "class_relevance",
        "count_flops",
        "decode_predictions",
        "export",
        "features",
        "features_to_rgb",
        "forward_features",
        "get_flops",
        "get_preprocessing",
        "grad_cam",
        "imagenet_classes",
        "layers",
        "linear_cka",
        "list_models",
        "load",
        "load_weights",
        "patch_filters",
        "position_similarity",
        "resize_model",
        "save_weights",
    ]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_public_name_hides_a_submodule(name):
    package = importlib.import_module(name)
    submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    for public in getattr(package, "__all__", ()):
        value = getattr(package, public)
        if public in submodules:
            assert value is importlib.import_module(f"{name}.{public}")
    for submodule in submodules & vars(package).keys():
        assert vars(package)[submodule] is importlib.import_module(f"{name}.{submodule}")


def resolve(name):
    """Returns what a dotted name stands for; a module that no one has imported yet is imported."""
    path, *parts = name.split(".")
    value = importlib.import_module(path)
    for part in parts:
        path = f"{path}.{part}"
        if hasattr(value, part):
            value = getattr(value, part)
        elif part in getattr(value, "__annotations__", ()):  # a field of a dataclass
            return value
        else:
            value = importlib.import_module(path)
    return value


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dotted_names_resolve(path):
    for name in set(re.findall(r"(?<![\w/.(])vit_tf(?!\.json)(?:\.[A-Za-z]\w*)+", path.read_text("utf-8"))):
        try:
            resolve(name)
        except ImportError as error:
            raise AssertionError(f"{path.relative_to(ROOT)} names `{name}`, which does not exist") from error


def test_layers_are_registered_under_the_package():
    for module in (vit_tf.layers, batch):
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, keras.layers.Layer)
        ]
        assert len(classes) >= 4
        for layer_class in classes:
            if layer_class.__name__ not in ("Block", "RandomLayer"):  # base classes are never saved
                assert keras.saving.get_registered_name(layer_class) == f"vit_tf>{layer_class.__name__}"


def public_functions():
    """Yields (name, function) of public functions, and of constructors and public methods of classes."""
    for package in PACKAGES:
        for name in getattr(importlib.import_module(package), "__all__", ()):
            value = getattr(importlib.import_module(package), name)
            if inspect.isfunction(value):
                yield f"{package}.{name}", value
            elif inspect.isclass(value) and value.__module__.startswith("vit_tf"):
                for method, function in vars(value).items():
                    is_public = method == "__init__" or not method.startswith("_")
                    is_ours = str(getattr(function, "__module__", "")).startswith(
                        "vit_tf"
                    )  # not Matplotlib's
                    if is_public and is_ours and inspect.isfunction(function):
                        yield f"{package}.{name}.{method}", function


FUNCTIONS = dict(public_functions())


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_public_functions_are_annotated(name):
    signature = inspect.signature(FUNCTIONS[name])
    annotations = [x.annotation for x in signature.parameters.values() if x.name != "self"]
    if not name.endswith(".__init__"):
        annotations.append(signature.return_annotation)
    assert inspect.Signature.empty not in annotations
