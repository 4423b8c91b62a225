"""The step times that `vit-tf plan` predicts, compared with one and two JAX processes on this machine.

    python benchmarks/plan_check.py              # about three minutes on two cores
    python benchmarks/plan_check.py --rounds 9 --out runs/plan_check.json

Each process has one core. The script measures, in turns within each round:

- a calibration ViT in one process, and in two processes at once that do not communicate: FLOP/s of a core;
- a larger ViT in one process, which the plan predicts from the FLOP/s of the calibration;
- all-reduces of two processes over loopback (Gloo), one for each weight of the larger ViT: the link;
- the larger ViT in two processes under `keras.distribution.DataParallel`, each with half of the batch, which
  the plan predicts from the FLOP/s of two busy cores and from the link.

Medians over the rounds. Other work on the machine disturbs the processes by different amounts: the load is
printed, and results of a busy machine say little.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from vit_tf.commands import parser as cli

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
VARIANT = "vit_tiny_patch16_224"
CALIBRATION = {"image_size": 96, "hidden_dim": 192, "num_heads": 3, "mlp_dim": 768, "num_layers": 3}
LARGER = {"image_size": 128, "hidden_dim": 256, "num_heads": 4, "mlp_dim": 1024, "num_layers": 4}
NUM_CLASSES = 10
THREADS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


# ---------------------------------------------------------------------------------------------------
# A process that trains
# ---------------------------------------------------------------------------------------------------
def work(spec):
    """Builds a model, then answers "step N" and "reduce N" on standard input by seconds per call."""
    os.sched_setaffinity(0, {spec["core"]})
    import keras

    import vit_tf
    from vit_tf.training import make_optimizer

    if spec["port"]:
        address = f"127.0.0.1:{spec['port']}"
        keras.distribution.initialize(f"{address},{address}", 2, spec["rank"])
        layout = keras.distribution.DataParallel(auto_shard_dataset=False)
        keras.distribution.set_distribution(layout)
    keras.utils.set_random_seed(0)
    model = vit_tf.build_vit(VARIANT, num_classes=NUM_CLASSES, **spec["model"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(make_optimizer(model, "adamw", 1e-3, 0.05), loss)
    images, labels = random_batch(spec)
    calls = {"step": lambda: model.train_on_batch(images, labels)}
    if spec["port"]:
        calls["reduce"] = make_reduction(model, spec["rank"])
    for call in calls.values():
        for _ in range(3):
            call()
    answer({"ready": True})
    for line in sys.stdin:
        name, count = line.split()
        start = time.perf_counter()
        for _ in range(int(count)):
            calls[name]()
        answer({"seconds": (time.perf_counter() - start) / int(count)})


def random_batch(spec):
    import numpy as np

    rng = np.random.default_rng(spec["rank"])
    side = spec["model"]["image_size"]
    images = rng.normal(size=(spec["batch_size"], side, side, 3)).astype("float32")
    return images, rng.integers(0, NUM_CLASSES, spec["batch_size"])


def make_reduction(model, rank):
    """Returns a function that sums up an array of each process for each weight, as training does."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("process",))
    rows, whole = NamedSharding(mesh, PartitionSpec("process")), NamedSharding(mesh, PartitionSpec())
    arrays = [
        jax.make_array_from_process_local_data(rows, np.full((1, *x.shape), rank, "float32"), (2, *x.shape))
        for x in model.trainable_variables
    ]
    sum_up = jax.jit(lambda arrays: [x.sum(0) for x in arrays], out_shardings=whole)
    return lambda: jax.block_until_ready(sum_up(arrays))


def answer(content):
    print(f"\n{json.dumps(content)}", flush=True)


# ---------------------------------------------------------------------------------------------------
# The parent
# ---------------------------------------------------------------------------------------------------
class Process:
    """A process that trains a model on one core."""

    def __init__(self, model, batch_size, core, rank=0, port=0):
        spec = dict(model=model, batch_size=batch_size, core=core, rank=rank, port=port)
        environment = {
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "XLA_FLAGS": THREADS,
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def start(self, name, count):
        self.process.stdin.write(f"{name} {count}\n")
        self.process.stdin.flush()

    def wait(self):
        """Returns the next answer."""
        for line in self.process.stdout:  # libraries print other lines
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"a process ended with exit code {self.process.wait()}")


def together(processes, name, count):
    """Returns the seconds per call of processes that run at the same time: those of the slower."""
    for process in processes:
        process.start(name, count)
    return max(process.wait()["seconds"] for process in processes)


def free_port():
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def measure(rounds, steps, batch_size):
    """Returns the seconds per call of each measurement, a list of one number per round."""
    port = free_port()
    groups = {
        "calibration": [Process(CALIBRATION, batch_size, core) for core in (0, 1)],
        "larger": [Process(LARGER, batch_size, 0)],
        "pair": [Process(LARGER, batch_size // 2, core, core, port) for core in (0, 1)],
    }
    everyone = [process for group in groups.values() for process in group]
    try:
        for process in everyone:
            process.wait()
        print(f"ready; load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
        tasks = {
            "one calibration": (groups["calibration"][:1], "step"),
            "one larger": (groups["larger"], "step"),
            "two calibrations": (groups["calibration"], "step"),
            "all-reduce": (groups["pair"], "reduce"),
            "two larger": (groups["pair"], "step"),
        }
        times = {name: [] for name in tasks}
        for _ in range(rounds):
            for name, (processes, call) in tasks.items():
                times[name].append(together(processes, call, steps))
        return times
    finally:
        for process in reversed(everyone):  # rank 0 last: the others write errors when it ends
            process.process.kill()


def workload_of(model):
    """Returns the plan's numbers of a model."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    from vit_tf.planning import measure_workload

    return measure_workload(VARIANT, num_classes=NUM_CLASSES, **model)


def predict(seconds, batch_size):
    """Returns the plan's step times of the larger ViT: (one process, two, of that all-reduce, rates).

    Args:
        seconds: dict from the names of measurements to seconds per call.
        batch_size: int, images per step of all processes.
    """
    from vit_tf.planning import Cluster, ImageSet, Job, Speed, estimate, ring_all_reduce_bytes

    small, large = workload_of(CALIBRATION), workload_of(LARGER)
    work = batch_size * small.training_flops()
    alone, busy = (Speed(work / seconds[name], name) for name in ("one calibration", "two calibrations"))
    link = ring_all_reduce_bytes(4 * large.parameters, 2) / seconds["all-reduce"]
    job = Job(ImageSet(batch_size, 1e3), 1, batch_size, "adamw", "float32")
    one = estimate(large, job, Cluster("cpu-core"), alone).layouts[0]
    two = estimate(large, job, Cluster("cpu-core", 2, link=link), busy).layouts[0]
    rates = {"GFLOP/s alone": alone.flops / 1e9, "GFLOP/s busy": busy.flops / 1e9, "link, GB/s": link / 1e9}
    return one.step_seconds, two.step_seconds, two.communication_seconds, rates


def main():
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="calls per turn")
    parser.add_argument("--batch-size", type=int, default=32, help="fewer images: more all-reduce")
    parser.add_argument("--out", type=Path, help="write all times to a JSON file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    cli.check_counts(args, "rounds", "steps", "batch_size")
    if args.batch_size % 2:
        raise ValueError(f"--batch-size must be even, for two processes, got {args.batch_size}")
    if args.worker:
        return work(json.loads(args.worker))
    if len(os.sched_getaffinity(0)) < 2:
        raise ValueError("this benchmark needs two cores")
    times = measure(args.rounds, args.steps, args.batch_size)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    one, two, reduction, rates = predict(seconds, args.batch_size)
    print(", ".join(f"{name} {value:.3g}" for name, value in rates.items()))
    print("\n| step of the larger ViT | predicted, ms | measured, ms (range) | predicted / measured |")
    print("|---|---:|---:|---:|")
    for label, predicted, name in (("one process", one, "one larger"), ("two processes", two, "two larger")):
        low, middle, high = (1000 * f(times[name]) for f in (min, statistics.median, max))
        print(
            f"| {label} | {1000 * predicted:.1f} | {middle:.1f} ({low:.1f} to {high:.1f}) "
            f"| {1000 * predicted / middle:.2f} |"
        )
    print(f"\nall-reduce: {1000 * reduction:.1f} ms of {1000 * two:.1f} predicted")
    if args.out:
        args.out.write_text(json.dumps({"seconds": times, "rates": rates, "load": os.getloadavg()}, indent=1))


if __name__ == "__main__":
    cli.run(main)
