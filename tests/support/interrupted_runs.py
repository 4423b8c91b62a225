"""Trains once undisturbed and once killed again and again, and prints what came of it as JSON.

    PYTHONPATH=.:tests python -m support.interrupted_runs FOLDER NUM_KILLS EPOCHS

Trains by `vit-tf finetune` on image files, in a process that SIGKILL ends at random moments; every
fourth time while a checkpoint is being written. Each process is forked from this one, which has imported
TensorFlow already but computed nothing with it, and runs its few steps without tracing them: both save
seconds per start. The rehearsal and the plots of the end are left out.
"""
# ruff: noqa: E402

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from support.paths import ROOT

sys.path[:0] = [str(ROOT)]

import grain  # noqa: F401 (imported before the fork)
import numpy as np
import tensorflow as tf
from PIL import Image

from vit_tf import variants
from vit_tf.commands.main import main
from vit_tf.training import ending

# Everything that draws at random or carries a state from step to step.
OPTIONS = """
    --model vit_cifar10 --image-size 16 --batch-size 4 --checkpoint-minutes 0 --deterministic
    --layer-decay 0.8 --accumulation-steps 3 --ema 0.9 --clip-norm 1 --drop-path-rate 0.2 --dropout-rate 0.1
    --mixup 0.2 --cutmix 0.5 --randaugment 7 --random-erasing 0.3 --patience 16 --learning-rate 1e-3
""".split()
TINY = dict(num_layers=1, hidden_dim=8, num_heads=2, mlp_dim=8)


def make_images(folder):
    folder.mkdir()
    generator = np.random.default_rng(0)
    for label, brightness in (("cat", 60), ("dog", 160)):
        for i in range(20):
            shape = (*generator.integers(16, 30, 2), 3)
            pixels = np.clip(generator.normal(brightness, 40, shape), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(folder / f"{label}.{i}.png")


def start(images, run, epochs):
    """Returns the id of a new process that trains, or continues."""
    process = os.fork()
    if process:
        return process
    log = os.open(run.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    code = 1
    try:
        code = main(["finetune", str(images), *OPTIONS, "--epochs", str(epochs), "--out", str(run)]) or 0
    except BaseException as error:
        print(repr(error), flush=True)
    finally:
        os._exit(code)


def files_in(folder):
    return set(os.listdir(folder)) if folder.is_dir() else set()


def wait_until(condition, process, seconds=120):
    """Waits until `condition()`; an error where the process ends before."""
    end = time.monotonic() + seconds
    while not condition():
        if os.waitpid(process, os.WNOHANG)[0] or time.monotonic() > end:
            raise RuntimeError("the process ended before it was killed")
        time.sleep(0.0005)


def kill(process, checkpoints, during_write, delay):
    """Kills a process that trains; returns whether it left a checkpoint half-written."""
    before = files_in(checkpoints)
    wait_until(lambda: files_in(checkpoints) - before, process)  # it trains
    time.sleep(delay)
    if during_write:
        wait_until(lambda: any(name.startswith("partial.") for name in files_in(checkpoints)), process)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return any(name.startswith("partial.") for name in files_in(checkpoints))


def last_step(checkpoints):
    steps = [int(name.split("-")[1]) for name in files_in(checkpoints) if name.startswith("step-")]
    return max(steps, default=0)


def kill_repeatedly(folder, num_kills, epochs):
    folder = Path(folder)
    images, whole, killed = (folder / name for name in ("images", "whole", "killed"))
    make_images(images)
    tf.config.run_functions_eagerly(True)
    ending.rehearse = ending.draw_report = lambda *_: None
    variants.VARIANTS["vit_cifar10"] = variants.get_variant("vit_cifar10", **TINY)
    codes = [os.waitpid(start(images, whole, epochs), 0)[1]]
    moments, half_written, delays = [], 0, random.Random(0)
    for i in range(num_kills):
        process = start(images, killed, epochs)
        half_written += kill(process, killed / "checkpoints", i % 4 == 3, delays.uniform(0, 0.2))
        moments.append(last_step(killed / "checkpoints"))
    codes.append(os.waitpid(start(images, killed, epochs), 0)[1])
    print(json.dumps({"codes": codes, "killed_at_steps": moments, "half_written": half_written}))


if __name__ == "__main__":
    kill_repeatedly(sys.argv[1], *map(int, sys.argv[2:]))
