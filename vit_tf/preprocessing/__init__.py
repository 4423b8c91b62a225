"""What a checkpoint expects of its images: see `Preprocessing`."""

from vit_tf.preprocessing.checkpoints import preprocessing, timm_table
from vit_tf.preprocessing.transform import PreprocessImages, Preprocessing

__all__ = ["PreprocessImages", "Preprocessing", "preprocessing", "timm_table"]
