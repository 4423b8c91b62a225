"""What a checkpoint expects of its images: see `Preprocessing`."""

from vit_tf.preprocessing.resolve import get_preprocessing, timm_table
from vit_tf.preprocessing.transform import PreprocessImages, Preprocessing

__all__ = ["PreprocessImages", "Preprocessing", "get_preprocessing", "timm_table"]
