"""Embeddings of images by a Vision Transformer, and what they are for: search, near-duplicates, k-NN.

Reading and searching embeddings imports neither Keras nor TensorFlow.
"""

from typing import TYPE_CHECKING

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.embeddings.copies import near_duplicates
    from vit_tf.embeddings.extractor import FeatureExtractor, features
    from vit_tf.embeddings.knn import knn_votes
    from vit_tf.embeddings.neighbours import NearestNeighbours, normalized
    from vit_tf.embeddings.vector_file import Embeddings, read_embeddings, write_embeddings
    from vit_tf.embeddings.vector_info import VectorInfo

__all__ = [
    "Embeddings",
    "FeatureExtractor",
    "NearestNeighbours",
    "VectorInfo",
    "features",
    "knn_votes",
    "near_duplicates",
    "normalized",
    "read_embeddings",
    "write_embeddings",
]
__getattr__, __dir__ = lazy_exports(__name__)
