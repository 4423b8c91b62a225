"""How faithful saliency maps are: the accuracy of a model without the patches that a map ranks first or last.

    python benchmarks/perturbation.py --data cifar10.npz          # 1,000 test images: about five minutes
    python benchmarks/perturbation.py --data cifar10.npz --count 200

A tenth, two tenths, ... nine tenths of the patches become grey: those that a map ranks highest, or those that
the map ranks lowest. The table has the mean accuracy over the nine fractions. With a faithful map, the
accuracy drops fast in the first case and slowly in the second. Reference: Chefer et al., "Transformer
Interpretability Beyond Attention Visualization" (https://arxiv.org/abs/2012.09838), section 4.2, perturbation
tests.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import vit_tf
from vit_tf import data
from vit_tf.commands import parser as cli
from vit_tf.structure import ViTStructure

BATCH = 200


def last_attention(model, x):
    """Returns the mean attention of all tokens in the last block, a map that is often drawn."""
    structure = ViTStructure(model)
    (scores,) = vit_tf.attention_maps(model, x, layers=[-1], reduce="mean").values()
    return structure.to_grid(scores.mean(axis=1)[:, structure.tokens("patches")])


def random_map(model, x):
    return np.random.default_rng(0).random((len(x), *ViTStructure(model).grid_size))


MAPS = {
    "random": random_map,
    "attention of the last block": last_attention,
    "Grad-CAM": vit_tf.grad_cam,
    "rollout": vit_tf.attention_rollout,
    "relevance": vit_tf.class_relevance,
}


def without(x, maps, fraction, first):
    """Returns images with a fraction of their patches in grey: those that a map ranks first, or last."""
    flat = maps.reshape(len(x), -1)
    order = np.argsort(-flat if first else flat, axis=1)
    kept = np.ones_like(flat)
    np.put_along_axis(kept, order[:, : round(fraction * flat.shape[1])], 0, axis=1)
    kept = kept.reshape(maps.shape)
    for axis, size in ((1, x.shape[1]), (2, x.shape[2])):
        kept = kept.repeat(size // kept.shape[axis], axis=axis)
    return x * kept[..., None]  # the images are normalized: 0 is the mean


def correct(model, x, labels):
    return np.sum(model.predict_on_batch(x).argmax(axis=1) == labels)


def main(arguments=None):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sample", help="see scripts/train_cifar10.py")
    parser.add_argument("--count", type=int, default=1000, help="test images")
    args = parser.parse_args(arguments)
    cli.check_counts(args, "count")
    model = vit_tf.build_vit(weights="cifar10")
    prepare = vit_tf.get_preprocessing("cifar10")
    images = data.load_cifar(args.data)
    x, labels = prepare(images.x_test[: args.count]), images.y_test[: args.count]
    correct_counts = {name: np.zeros((2, 9)) for name in MAPS}
    for start in track(range(0, len(x), BATCH), "perturbing", console=Console(stderr=True), transient=True):
        some = slice(start, start + BATCH)
        for name, function in MAPS.items():
            maps = function(model, x[some])
            for i, first in enumerate((True, False)):
                for tenth in range(9):
                    seen = without(x[some], maps, (tenth + 1) / 10, first)
                    correct_counts[name][i, tenth] += correct(model, seen, labels[some])
    intact = sum(correct(model, x[i : i + BATCH], labels[i : i + BATCH]) for i in range(0, len(x), BATCH))
    table = Table("map", "highest-ranked patches removed", "lowest-ranked patches removed")
    for name, counts in correct_counts.items():
        table.add_row(name, *(f"{share:.1%}" for share in counts.mean(axis=1) / len(x)))
    Console().print(table)
    print(f"{images.name}: {len(x)} test images, {intact / len(x):.1%} with all patches")


if __name__ == "__main__":
    cli.run(main)
