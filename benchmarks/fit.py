"""How long Keras's `fit` waits at the end of an epoch on TensorFlow, by where its batches come from.

    python benchmarks/fit.py                       # a minute
    python benchmarks/fit.py --variant vit_b16 --rounds 3

Each row trains the same model for a few batches of random images, several times, in turns. "Cores" is the
time of the processor over that of the clock: where `fit` waits, the cores rest. At its end a `tf.data`
pipeline waits for its own tuning, which sleeps for 10 ms, then twice as long each time.
"""

import argparse
import os
import time
from statistics import median

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from contestants.tutorial import untuned_batches

import vit_tf
from vit_tf.commands import parser as cli

BATCHES = 4


class Batches(keras.utils.PyDataset):
    """Batches of arrays, as a user's own data set gives them."""

    def __init__(self, x, y, batch_size):
        super().__init__()
        self.x, self.y, self.batch_size = x, y, batch_size

    def __len__(self):
        return len(self.x) // self.batch_size

    def __getitem__(self, index):
        part = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return self.x[part], self.y[part]


def main(arguments=None):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="vit_s16", help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="images per batch (8)")
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    args = parser.parse_args(arguments)
    cli.check_counts(args, "batch_size", "rounds")
    model = vit_tf.build_vit(args.variant)
    model.compile(keras.optimizers.AdamW(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    calls = make_calls(model, args.batch_size)
    print(markdown(measure(calls, args.rounds)))


def make_calls(model, batch_size):
    """Returns {row: function that trains on all batches}."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCHES * batch_size, *model.input_shape[1:])).astype("float32")
    y = rng.integers(0, model.output_shape[-1], len(x))
    batches = Batches(x, y, batch_size)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(batch_size).prefetch(2)
    untuned = untuned_batches(x, y, batch_size)
    return {
        "`fit(x, y)` with NumPy arrays": lambda: model.fit(x, y, batch_size, verbose=0),
        "`fit` with a `keras.utils.PyDataset`": lambda: model.fit(batches, verbose=0),
        "`fit` with a `tf.data.Dataset`": lambda: model.fit(dataset, shuffle=False, verbose=0),
        "the same, `autotune.enabled = False`": lambda: model.fit(untuned, shuffle=False, verbose=0),
        "`train_on_batch`": lambda: [model.train_on_batch(*batches[i]) for i in range(BATCHES)],
    }


def measure(calls, rounds):
    """Returns {row: [(seconds of the clock, seconds of the processor) per round]} per batch."""
    times = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            clock, processor = time.perf_counter(), time.process_time()
            call()
            own = (time.perf_counter() - clock) / BATCHES, (time.process_time() - processor) / BATCHES
            if turn:  # the first one compiles
                times[name].append(own)
    return times


def markdown(times):
    lines = ["| | ms per batch | cores |", "|---|---:|---:|"]
    for name, own in times.items():
        clock = [1000 * seconds for seconds, _ in own]
        cores = [processor / seconds for seconds, processor in own]
        values = f"{median(clock):,.0f} ({min(clock):,.0f} to {max(clock):,.0f})"
        lines.append(f"| {name} | {values} | {median(cores):.1f} ({min(cores):.1f} to {max(cores):.1f}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
