"""The parent's side of the worker processes."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1]
LIMIT_SECONDS = 900  # of one answer


class WorkerError(Exception):
    """A worker failed, in words for the tables."""


class Worker:
    """A contestant in a process of its own; use it in a `with`, or call `close`.

    Args:
        contestant: a `Contestant`.
        job: the `Job` to build.
        log: path of a file for what the process prints; its folder takes temporary files, too, as a worker
            that is killed removes none.
    """

    def __init__(self, contestant, job, log):
        spec = {"module": contestant.module, "options": contestant.options, "job": asdict(job)}
        self.log = Path(log)
        paths = [str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
            "TMPDIR": str(self.log.parent),
            **contestant.environment,
        }
        with open(self.log, "wb") as log_file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "contestants.worker", json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the parent, who then ends the workers
            )

    def ask(self, do, **arguments):
        """Sends a command and returns the answer, a dict.

        Raises:
            WorkerError: the worker reports an error, ended, or did not answer in `LIMIT_SECONDS`.
        """
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], LIMIT_SECONDS)
        except BrokenPipeError:
            ready = [self.process.stdout]
        if not ready:
            raise WorkerError(f"no answer in {LIMIT_SECONDS} seconds")
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(self.how_it_ended())
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def how_it_ended(self):
        code = self.process.wait()
        if code == -signal.SIGKILL:
            return "was killed, as the kernel does when memory ends"
        lines = self.log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"{how}: {last[:300]}"

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):  # a command that it did not live to read
            self.process.stdin.close()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def free_memory():
    """Returns the bytes of memory that processes can still take, infinity where the system tells none."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration):
        return float("inf")
