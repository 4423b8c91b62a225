"""Runs of several processes that are stopped, killed and continued, on the packaged images.

    PYTHONPATH=.:tests python -m support.process_runs train OPTIONS...    # one process, as `vit-tf train`
    PYTHONPATH=.:tests python -m support.process_runs kill FOLDER COUNT OPTIONS...  # kills, prints JSON
    PYTHONPATH=.:tests python -m support.process_runs resize FOLDER       # 2, 1 and 4 processes, prints JSON

The processes train a tiny model of Keras on JAX. The rehearsal and the plots of the end are left out.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

TINY = dict(patch_size=8, patch_stem="patches", num_layers=1, hidden_dim=8, num_heads=2, mlp_dim=8)
OPTIONS = """
    --data sample --variant vit_cifar10 --preset adamw --batch-size 256 --epochs 6 --checkpoint-minutes 0
    --crop none --no-mixed-precision --progressive-resizing none --ema 0.9 --clip-norm 1 --mixup 0.2
    --accumulation-steps 2 --learning-rate 1e-3
""".split()
HEARTBEAT_SECONDS = 8
LIMIT = 60  # seconds in which the others must end


def train(arguments):
    """Runs `vit-tf train`. Like the command, it imports JAX only after the standard error is rewritten."""
    from vit_tf import variants
    from vit_tf.commands import training_run
    from vit_tf.commands.main import main
    from vit_tf.commands.parser import run
    from vit_tf.training.distribution import rendezvous

    train_and_report = training_run.train

    def without_end(*values):
        from vit_tf.training import ending

        ending.rehearse = ending.draw_report = lambda *_: None
        return train_and_report(*values)

    training_run.train = without_end
    rendezvous.HEARTBEAT_SECONDS = HEARTBEAT_SECONDS
    variants.VARIANTS["vit_cifar10"] = variants.get_variant("vit_cifar10", **TINY)
    run(lambda: main(["train", *arguments]))


def start(count, folder, *options):
    """Returns the processes of a run, which is continued if it has begun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(count):
        environment = {**os.environ, "KERAS_BACKEND": "jax"}
        if count > 1:
            environment |= {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(rank),
            }
        command = [sys.executable, "-m", "support.process_runs", "train", *OPTIONS, *options]
        log = open(f"{folder}-{rank}.log", "ab")
        processes.append(
            subprocess.Popen([*command, "--out", str(folder)], env=environment, stdout=log, stderr=log)
        )
    return processes


def finish(processes):
    codes = [process.wait(300) for process in processes]
    if any(codes):
        raise RuntimeError(f"the processes ended with {codes}")


def steps(folder):
    names = [path.name for path in (folder / "checkpoints").glob("step-*")]
    return max((int(name.split("-")[1]) for name in names), default=-1)


def wait_for_step(folder, step, processes):
    end = time.monotonic() + 200
    while steps(folder) < step:
        if time.monotonic() > end or any(process.poll() is not None for process in processes):
            raise RuntimeError(f"no step {step}: {[process.poll() for process in processes]}")
        time.sleep(0.01)


def difference(first, second):
    """Returns the largest difference between the last checkpoints of two runs, and whether rows are equal."""
    from vit_tf.training.loop.checkpoints import Checkpoints

    (one, state), (two, other) = (Checkpoints(folder / "checkpoints").load() for folder in (first, second))
    largest = max(
        float(np.abs(whole(one[name]) - whole(two[name])).max()) for name in one if np.prod(one[name].shape)
    )
    rows = [[(row["epoch"], row["step"]) for row in x["rows"]] for x in (state, other)]
    return largest, one.keys() == two.keys() and rows[0] == rows[1] and state["step"] == other["step"]


def whole(array):
    return np.asarray(array[(slice(None),) * len(array.shape)], "float64")


def kill(folder, count, *options):
    """Kills a random one of two processes again and again; the other must end by itself."""
    undisturbed, killed, draw = folder / "undisturbed", folder / "killed", random.Random(0)
    finish(start(2, undisturbed, *options))
    seconds, moments = [], []
    for _ in range(count):
        processes, step = start(2, killed, *options), steps(killed)
        wait_for_step(killed, step + 1, processes)
        time.sleep(draw.uniform(0, 0.5))
        victim = draw.randrange(2)
        processes[victim].kill()
        started = time.monotonic()
        processes[1 - victim].wait(LIMIT)
        seconds.append(round(time.monotonic() - started, 1))
        moments.append(steps(killed))
    finish(start(2, killed, *options))
    largest, is_equal = difference(undisturbed, killed)
    logs = [Path(f"{killed}-{rank}.log").read_text() for rank in range(2)]
    named = sum(log.count("has ended or does not answer") for log in logs)
    return {
        "difference": largest,
        "rows_equal": is_equal,
        "seconds": seconds,
        "steps": moments,
        "named": named,
    }


def resize(folder):
    """Continues a run of 2 processes with 1, then with 4; SIGTERM at one process stops all."""
    undisturbed, resized = folder / "undisturbed", folder / "resized"
    finish(start(1, undisturbed))
    codes = []
    for count in (2, 1):
        processes, step = start(count, resized), steps(resized)
        wait_for_step(resized, step + 5, processes)
        processes[-1].send_signal(signal.SIGTERM)
        codes += [process.wait(120) for process in processes]
    finish(start(4, resized))
    largest, is_equal = difference(undisturbed, resized)
    return {"difference": largest, "rows_equal": is_equal, "codes": codes}


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(sys.argv[2:])
    elif sys.argv[1] == "kill":
        print(json.dumps(kill(Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])))
    else:
        print(json.dumps(resize(Path(sys.argv[2]))))
