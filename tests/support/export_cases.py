"""Small models of the kinds whose exports are compared with Keras."""

from conftest import randomize

from support.cases import small
from vit_tf import build_vit, get_preprocessing, load
from vit_tf.classifier import Classifier
from vit_tf.deploy.web.runtime_files import SCRIPT, WEBASSEMBLY

NARROW = dict(num_heads=1, hidden_dim=8, mlp_dim=8)
SHAPES = {
    "plain": ("vit_tiny_patch16_224", {"num_layers": 2}),
    "distilled": ("deit_tiny_distilled_patch16_224", {"separate_heads": True}),
    "registers": ("vit_small_patch14_reg4_dinov2", {}),
    "siglip": ("vit_base_patch16_siglip_224", {}),
    "swiglu": ("vit_giant_patch14_reg4_dinov2", {}),
    "features": ("vit_small_patch14_reg4_dinov2", {"num_classes": 0}),
    "parallel_scaling": ("vit_tiny_patch16_224", {"block": "parallel_scaling"}),
    "differential": ("vit_tiny_patch16_224", {"attention": "differential", "num_heads": 2}),
    "many_tokens": ("vit_tiny_patch16_224", {"image_size": (66, 64), "patch_size": 2, **NARROW}),
}
KINDS = ("cifar10", *SHAPES)


def small_classifier(kind):
    """Returns a `Classifier` with random weights of a kind in `SHAPES`, or the packaged one for "cifar10"."""
    if kind == "cifar10":
        return load("cifar10")
    variant, options = SHAPES[kind]
    model = randomize(build_vit(variant, **{**small(variant), "num_layers": 1, **options}))
    labels = None if options.get("num_classes") == 0 else ("ant", "bee", "cow", "dog", "elk")
    return Classifier(model, get_preprocessing(variant, model.input_shape[1:3]), labels)


def runtime_web_folder(folder):
    """Writes an npm package onnxruntime-web without any code into a folder; returns its path."""
    package = folder / "onnxruntime-web"
    package.mkdir()
    (package / SCRIPT).write_bytes(b"/* ONNX Runtime Web v1.2.3 */")
    (package / WEBASSEMBLY).write_bytes(b"\0asm")
    return package
