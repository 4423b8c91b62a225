"""Time and peak memory of the functions of `vit_tf.explain`, above the weights.

    python benchmarks/explain.py                                       # ViT-B/16 at 1,024 x 1,024 pixels
    python benchmarks/explain.py --variant vit_s16 --image-size 384

The input is one random image. Each function runs in a fresh process (Linux only). The peak is the resident
memory above that of the built model, and includes the memory that TensorFlow itself needs.
"""

import argparse
import os
import sys
import time

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from attention import memory
from processes import output_of
from rich.console import Console
from rich.table import Table

import vit_tf
from vit_tf.commands import parser as cli

FUNCTIONS = {
    "inference alone": lambda model, x: model(x, training=False),
    "last layer, class token": lambda model, x: vit_tf.attention_maps(
        model, x, layers=[-1], queries="class_token"
    ),
    "last layer, mean of the heads": lambda model, x: vit_tf.attention_maps(
        model, x, layers=[-1], reduce="mean"
    ),
    "all layers, class token": lambda model, x: vit_tf.attention_maps(model, x, queries="class_token"),
    "attention distance": vit_tf.attention_distance,
    "rollout": vit_tf.attention_rollout,
    "Grad-CAM": vit_tf.grad_cam,
    "features of all layers": vit_tf.forward_features,
}


def measure(name, variant, image_size):
    """Prints the seconds and the peak memory in MB of one function."""
    model = vit_tf.build_vit(variant, image_size=image_size)
    x = np.random.default_rng(0).normal(size=(1, *model.input_shape[1:])).astype("float32")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts again
    before, start = memory("VmRSS"), time.perf_counter()
    FUNCTIONS[name](model, x)
    print(time.perf_counter() - start, memory("VmHWM") - before)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="vit_b16")
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--only", choices=FUNCTIONS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    cli.check_counts(args, "image_size")
    if args.only:
        measure(args.only, args.variant, args.image_size)
        return
    table = Table("function", "seconds", "peak, MB")
    sizes = ["--variant", args.variant, "--image-size", str(args.image_size)]
    for name in FUNCTIONS:
        command = [sys.executable, __file__, *sizes, "--only", name]
        seconds, peak = map(float, output_of(command).split())
        table.add_row(name, f"{seconds:.1f}", f"{peak:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
