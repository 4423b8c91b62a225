"""The processes of a training run: options, how they meet, and what they share before the first step."""

import os
import sys
import tempfile
from pathlib import Path

from vit_tf import __version__
from vit_tf.commands.startup import import_backend, stdout_dropped
from vit_tf.training.distribution.choose import CHOICES
from vit_tf.training.distribution.process_group import JaxProcesses
from vit_tf.training.distribution.rendezvous import connect
from vit_tf.training.run_folder import versions


def add_distribution(parser):
    """Adds the options about devices and processes. They may change when a run is continued."""
    group = parser.add_argument_group("several devices and processes, which give the result of one device")
    group.add_argument(
        "--distribute",
        choices=CHOICES,
        help="data: each device computes a part of each batch; model: the weights are divided over devices, "
        "too (JAX); none: one device; default: auto, which is data where there are several devices",
    )
    group.add_argument(
        "--model-devices", type=int, metavar="N", help="devices of one copy with --distribute model (all)"
    )
    group.add_argument(
        "--coordinator-address",
        metavar="HOST:PORT",
        help="where process 0 of several listens (JAX_COORDINATOR_ADDRESS); tasks of SLURM need no option",
    )
    group.add_argument("--num-processes", metavar="N", help="how many processes train (JAX_NUM_PROCESSES)")
    group.add_argument("--process-id", metavar="N", help="the number of this one, from 0 (JAX_PROCESS_ID)")


def join(rendezvous):
    """Connects this process with the others; returns the group. Only the main process prints."""
    import_backend(trains=True)
    connect(rendezvous)
    group = JaxProcesses()
    with stdout_dropped():
        group.gather(None)
    if not group.is_main:
        sys.stdout = open(os.devnull, "w")
    group.require_equal({"vit_tf": __version__, **versions()}, "install the same versions on every machine")
    return group


def split_together(dataset, folder, command, recipe, saved, group):
    """Checks and splits the data in the main process; the others take its split of the same data."""

    def split_in_main():
        dataset.split(command, recipe, folder, is_new=not saved)
        return dataset.split_text(folder) if group.count > 1 else ""

    def use_split():
        if not group.is_main:
            with tempfile.TemporaryDirectory() as own:
                dataset.use_split(text, command, recipe, Path(own))

    text = group.on_main(split_in_main)
    group.on_all(use_split)
    if group.count > 1:
        group.require_equal({"the images' hash": dataset.digest()}, "give every process the same data")
