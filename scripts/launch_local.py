"""Start several training processes on this machine, to try what runs on several machines.

    python scripts/launch_local.py --processes 2 -- vit-tf train --data sample --out runs/two

Each process gets the address of the first, the number of processes and its own number from the environment.
The output of process 0 is shown; the others print only errors. Ctrl-C stops all after the current batch.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time

from vit_tf.commands.parser import Parser

SECONDS_TO_END = 60  # for the other processes, after one has failed


def parse_arguments():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="how many processes (2)")
    parser.add_argument("command", nargs="+", help="the command of each process, after --")
    args = parser.parse_args()
    if args.processes < 1:
        parser.error(f"--processes must be at least 1, got {args.processes}")
    return args


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    args = parse_arguments()
    places = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(args.processes)}
    processes = []
    for rank in range(args.processes):
        environment = {**os.environ, "KERAS_BACKEND": "jax", **places, "JAX_PROCESS_ID": str(rank)}
        processes.append(subprocess.Popen(args.command, env=environment))

    def pass_on(number, _):
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal sends it to all
    wait_for(processes)
    # The code of a process that a signal ended is negative here, and 128 + N in a shell.
    return max(code if code >= 0 else 128 - code for code in (process.returncode for process in processes))


def wait_for(processes):
    """Waits for all processes. One that is left behind a failed one, such as a stopped one, is killed."""
    failed_at = None
    while any(process.poll() is None for process in processes):
        if failed_at is None and any(process.returncode for process in processes):
            failed_at = time.monotonic()
        if failed_at and time.monotonic() - failed_at > SECONDS_TO_END:
            for process in processes:
                process.kill()
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
