"""Models as ONNX files: a writer of our own, which needs the package onnx alone."""

from typing import TYPE_CHECKING

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.deploy.onnx.write import write_onnx

__all__ = ["write_onnx"]
__getattr__, __dir__ = lazy_exports(__name__)
