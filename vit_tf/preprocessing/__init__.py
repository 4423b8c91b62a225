"""The evaluation transform of a checkpoint: resize, crop and normalisation of its input images."""

from typing import TYPE_CHECKING

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.preprocessing.layer import PreprocessImages
    from vit_tf.preprocessing.resolve import get_preprocessing, timm_table
    from vit_tf.preprocessing.transform import Preprocessing

__all__ = ["PreprocessImages", "Preprocessing", "get_preprocessing", "timm_table"]
__getattr__, __dir__ = lazy_exports(__name__)
