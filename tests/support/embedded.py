"""What the linear model of `write_features` makes of photographs."""

import numpy as np

from support.exported import PREPROCESSING, expected_logits
from vit_tf.preprocessing import Preprocessing

PREPARE = Preprocessing(**PREPROCESSING)


def vectors_of(folder, paths):
    """Returns the vectors of images by their paths below a folder."""
    return expected_logits(np.concatenate([PREPARE(folder / path) for path in paths]))
