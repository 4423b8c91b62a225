"""Vision Transformers for Keras 3."""

from vit_tf import layers
from vit_tf.models import build_vit
from vit_tf.variants import list_models

__all__ = ["build_vit", "layers", "list_models"]
__version__ = "0.1.0"
