"""What a checkpoint expects of its images: see `Preprocessing`."""

from typing import TYPE_CHECKING

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.preprocessing.resolve import get_preprocessing, timm_table
    from vit_tf.preprocessing.transform import PreprocessImages, Preprocessing

__all__ = ["PreprocessImages", "Preprocessing", "get_preprocessing", "timm_table"]
__getattr__, __dir__ = lazy_exports(__name__)
