"""Attention in chunks of queries against all queries at once: time and peak memory, by number of tokens.

    python benchmarks/attention.py                                     # two to four minutes on two cores
    python benchmarks/attention.py --tokens 4097 --chunk-sizes 256 1024 --dtype bfloat16

One layer's attention between its projections, 12 heads of 64 as in ViT-B/16, one image, in a `tf.function`;
4,097 tokens are an image of 1,024 x 1,024 pixels. For time, the chunk sizes take turns in one process, and
the table has medians. For memory, each chunk size runs alone in a fresh process (Linux only): the peak above
the memory before the first call, which already holds queries, keys, values and TensorFlow itself. "all"
computes all queries at once; a number is the number of queries per chunk.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from processes import output_of
from rich.console import Console
from rich.table import Table

from vit_tf import layers
from vit_tf.commands import parser as cli

NUM_HEADS, WIDTH, WARM_UP = 12, 768, 2


def make_step(num_tokens, chunk_size, kind, dtype):
    """Returns a function without arguments that runs one pass and waits for its end."""
    layer = layers.DotProductAttention(NUM_HEADS, query_chunk_size=chunk_size, dtype=dtype)
    layer.build((1, num_tokens, 3 * WIDTH))
    qkv = tf.cast(keras.random.normal((1, num_tokens, 3 * WIDTH), seed=1), dtype)
    goal = tf.cast(keras.random.normal((1, num_tokens, WIDTH), seed=2), dtype)

    @tf.function
    def step():
        if kind == "inference":
            return layer(qkv)
        with tf.GradientTape() as tape:
            tape.watch(qkv)
            x = layer(qkv, training=True)
        return tape.gradient(x, qkv, goal)

    return lambda: tf.reduce_max(step()).numpy()


def timed(step, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    return 1000 * (time.perf_counter() - start) / repeats


def median_times(steps, rounds, repeats):
    """Returns the median milliseconds of each step; the steps take turns."""
    times = [[timed(step, repeats) for step in steps] for _ in range(WARM_UP + rounds)][WARM_UP:]
    return [statistics.median(column) for column in zip(*times)]


def memory(name):
    """Returns MB of this process's resident memory: "VmRSS" is the current value, "VmHWM" the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def peak_memory(step):
    """Returns the peak memory of a step in MB, above the memory before."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    before = memory("VmRSS")
    step(), step()
    return memory("VmHWM") - before


def peak_in_fresh_process(*arguments):
    return float(output_of([sys.executable, __file__, "--peak", *map(str, arguments)]))


def main():
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[197, 577, 1025, 2305, 4097])
    parser.add_argument("--chunk-sizes", type=int, nargs="+", default=[512], help="queries per chunk")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    cli.check_counts(args, "tokens", "rounds")
    if args.peak:
        tokens, chunk_size, kind, dtype = args.peak
        print(peak_memory(make_step(int(tokens), int(chunk_size), kind, dtype)))
        return
    chunk_sizes = [0, *args.chunk_sizes]
    names = ["all", *map(str, args.chunk_sizes)]
    table = Table("tokens", "pass", *(f"{unit}, {name}" for unit in ("ms", "MB") for name in names))
    for tokens in args.tokens:
        for kind in ("inference", "training"):
            cases = [(tokens, size, kind, args.dtype) for size in chunk_sizes]
            times = median_times([make_step(*case) for case in cases], args.rounds, max(1, 4096 // tokens))
            peaks = [peak_in_fresh_process(*case) for case in cases]
            cells = [f"{value:.0f}" for value in (*times, *peaks)]
            table.add_row(f"{tokens:,}", kind, *cells)
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
