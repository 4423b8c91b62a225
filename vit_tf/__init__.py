"""Vision Transformers for Keras 3."""

from vit_tf import augment, layers
from vit_tf.flops import count_flops, get_flops
from vit_tf.models import build_vit
from vit_tf.variants import list_models

__all__ = ["augment", "build_vit", "count_flops", "get_flops", "layers", "list_models"]
__version__ = "0.1.0"
