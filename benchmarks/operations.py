"""Where the time of a call goes, by TensorFlow's operations: a step, inference, the tutorial's model.

    python benchmarks/operations.py                                     # an AdamW step of ViT-B/16, batch 8
    python benchmarks/operations.py --kind inference --batch-size 1 --precision bfloat16
    python benchmarks/operations.py --kind tutorial --contestant preset-loop --batch-size 256

TensorFlow's profiler records the operations of some calls of a contestant of `speed.py`. The table has the
time per call in which a thread ran each kind of operation. Their sum can exceed the time of a call, since two
operations can run at once, each in its own thread, and each may use all cores. The limit is the rate of a
product of two matrices of 4096 squared, measured in turns with the calls.
"""

import argparse
import importlib
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from contestants import CONTESTANTS, GEMM, Job, why_not
from speed import FULL, MODELS, flops_per_image

from vit_tf.commands import parser as cli

CALLS = 5
LEAST_SHARE = 0.01  # of the time: rarer operations share a row
ON_TENSORFLOW = "ours ours-xla keras-hub zeromodels textbook tutorial preset-fit preset-loop".split()
CALLERS = ("PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf")


def main(arguments=None):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("training", "inference", "tutorial"), default="training")
    parser.add_argument("--contestant", choices=ON_TENSORFLOW, default="ours", help="(%(default)s)")
    parser.add_argument("--model", choices=MODELS, default="vit_b16", help="not of tutorial (%(default)s)")
    parser.add_argument("--image-size", type=int, default=FULL.image_size, help="(%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="images per batch (8)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args(arguments)
    cli.check_counts(args, "batch_size")
    contestant = CONTESTANTS[args.contestant]
    if args.kind not in contestant.kinds:
        raise ValueError(
            f"{args.contestant} has no {args.kind}: expected --kind {' or '.join(contestant.kinds)}"
        )
    if reason := why_not(contestant, args.precision):
        raise ValueError(f"{args.contestant} cannot be measured: {reason}")
    side = FULL.matrix_side
    product = build(GEMM, Job("limit", args.precision, (side,))).make_step(side)
    job = Job(args.kind, args.precision, (args.batch_size,), args.image_size, MODELS[args.model])
    call = build(contestant, job).make_step(args.batch_size)
    product_seconds, seconds = usual_seconds(product, call)
    print(heading(args, seconds, limit=2 * side**3 / product_seconds))
    print(table(profile(call), seconds))


def build(contestant, job):
    return importlib.import_module(contestant.module).build(job, **contestant.options)


def usual_seconds(*calls):
    """Returns each one's median of some calls, in turns, after two turns that warm up."""
    times = [[] for _ in calls]
    for _ in range(CALLS + 2):
        for call, own in zip(calls, times):
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
    return [median(own[2:]) for own in times]


def heading(args, seconds, limit):
    model = "" if args.kind == "tutorial" else f", {args.model}"
    label = CONTESTANTS[args.contestant].label
    text = f"{label}{model}, {args.kind}, {args.precision}, batch {args.batch_size}: "
    text += f"{1000 * seconds:,.1f} ms a call"
    if model:
        flops = args.batch_size * flops_per_image(args.kind, args.model, args.image_size)
        text += f", {flops / seconds / limit:.0%} of the limit of {limit / 1e9:,.0f} GFLOP/s"
    return text + "\n"


def profile(call):
    """Returns {operation type: seconds per call} of some calls."""
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(CALLS):
                call()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        totals = Counter()
        for events in threads(trace):
            totals.update(own_times(events))
    return {kind: picoseconds / 1e12 / CALLS for kind, picoseconds in totals.items()}


def threads(trace):
    """Yields the events [(operation type, start, end)] of each thread, in picoseconds."""
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    for plane in XSpace.FromString(trace.read_bytes()).planes:
        if plane.name == "/host:CPU":
            names = {key: value.name for key, value in plane.event_metadata.items()}
            for line in plane.lines:
                yield [
                    (kind, event.offset_ps, event.offset_ps + event.duration_ps)
                    for event in line.events
                    if (kind := operation_type(names[event.metadata_id]))
                ]


def operation_type(name):
    """Returns the type of the operation of an event, such as "MatMul" of "model/dense/MatMul:MatMul"."""
    _, separator, kind = name.partition(":")
    return kind if separator and kind.isidentifier() and kind not in CALLERS else None


def own_times(events):
    """Returns {type: time} of one thread's events, each without the events inside it."""
    totals, open_events = Counter(), []
    for kind, start, end in sorted(events, key=lambda event: (event[1], -event[2])):
        while open_events and open_events[-1][1] <= start:
            open_events.pop()
        totals[kind] += end - start
        if open_events:
            totals[open_events[-1][0]] -= end - start
        open_events.append((kind, end))
    return totals


def table(times, seconds):
    """Returns the times as Markdown, the longest first."""
    total = sum(times.values())
    lines = ["| operation | ms a call | share |", "|---|---:|---:|"]
    rare = 0.0
    for kind, value in sorted(times.items(), key=lambda item: -item[1]):
        if value < LEAST_SHARE * total:
            rare += value
        else:
            lines.append(row(kind, value, total))
    lines.append(row("others", rare, total))
    lines.append(f"| together, of {1000 * seconds:,.1f} ms | {1000 * total:,.1f} | |")
    return "\n".join(lines)


def row(kind, value, total):
    return f"| {kind} | {1000 * value:,.1f} | {100 * value / total:.1f} % |"


if __name__ == "__main__":
    cli.run(main)
