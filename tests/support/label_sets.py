"""Images with several labels each."""

import numpy as np

from vit_tf.data import ImageFiles

# Drawn by default_rng(7) and rounded, so that scores are tied; the last class has no image.
LOGITS = np.array(
    [
        *([0.0, 0.8, -0.3, -0.4], [0.0, -0.5, 0.6, 1.3], [0.0, -0.6, 0.5, 0.4], [0.1, -0.9, 0.5, 0.7]),
        *([-0.8, -0.5, -1.4, -1.3], [-1.3, -0.2, -0.8, 0.3], [0.2, 0.3, -2.5, -0.5], [0.0, 0.1, -1.0, 0.0]),
        *([-1.0, -0.8, 1.6, -0.8], [0.0, 0.9, -0.1, -0.1], [0.6, 0.6, -1.2, 0.1], [1.4, -1.0, 0.9, 0.6]),
    ]
)
ROWS = "0100 1110 1000 0010 1010 1010 0100 0010 0010 0010 1100 0100".split()
TARGETS = np.array([[int(digit) for digit in row] for row in ROWS], bool)


def make_files(root, n=400, seed=0):
    """ImageFiles whose classes are frequent and rare, and go together."""
    generator = np.random.default_rng(seed)
    labels = generator.random((n, 5)) < (0.5, 0.3, 0.1, 0.05, 0.0)
    labels[:, 1] |= labels[:, 2]
    labels[[3, 50, 99], 4] = True
    names = tuple(f"{i:04}.jpg" for i in range(n))
    return ImageFiles(root, tuple("abcde"), names, labels, (None,) * n)
