"""A contestant's process: builds one model, and times it when its parent says so.

It reads commands from standard input and answers each on standard output, a line of JSON both. Whatever the
libraries print goes to standard error.

    {"do": "build"}                             -> parameters, resident (bytes), build_seconds
    {"do": "warm_up", "batch_size": 8}          -> output_shape, peak (bytes), warm_up_seconds
    {"do": "run", "batch_size": 8, "seconds": 1} -> times (seconds a call), peak, idle (CPU seconds since
                                                   the last answer: a worker that spins disturbs the others)

An error is answered by {"error": text}, and ends the process.
"""

import contextlib
import importlib
import json
import os
import sys
import time
from pathlib import Path

from contestants import Dimensions, Job

WARM_UP_CALLS = 2


class Session:
    """Answers the commands of one contestant."""

    def __init__(self, module, options, job):
        self.module = importlib.import_module(module)
        self.options = options
        self.job = job
        self.steps = {}

    def build(self):
        start = time.perf_counter()
        self.built = self.module.build(self.job, **self.options)
        seconds = time.perf_counter() - start
        return {
            "parameters": self.built.parameters,
            "resident": memory("VmRSS"),
            "build_seconds": seconds,
        }

    def warm_up(self, batch_size):
        start = time.perf_counter()
        step = self.steps[batch_size] = self.built.make_step(batch_size)
        for _ in range(WARM_UP_CALLS):
            output = step()
        return {
            "output_shape": list(getattr(output, "shape", ())),
            "peak": memory("VmHWM"),
            "warm_up_seconds": time.perf_counter() - start,
        }

    def run(self, batch_size, seconds):
        step, times = self.steps[batch_size], []
        while not times or sum(times) < seconds:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        return {"times": times, "peak": memory("VmHWM")}


def memory(name):
    """Returns bytes of resident memory, now (VmRSS) or at most so far (VmHWM).

    VmHWM is what `ru_maxrss` should be: that one also counts the parent's memory before the `exec`.
    """
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def serve(session, commands, answers):
    """Answers commands until they end or one fails."""
    idle_since = time.process_time()
    for line in commands:
        idle = time.process_time() - idle_since
        command = json.loads(line)
        try:
            answer = getattr(session, command.pop("do"))(**command)
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            print(json.dumps({"error": f"{type(error).__name__}: {text}"}), file=answers, flush=True)
            raise
        idle_since = time.process_time()
        print(json.dumps({**answer, "idle": idle}), file=answers, flush=True)


def main():
    spec = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with contextlib.suppress(OSError):  # when memory ends, the kernel shall take a worker, not the parent
        Path("/proc/self/oom_score_adj").write_text("1000")
    fields = spec["job"]
    dimensions = fields.pop("dimensions")
    job = Job(**fields, dimensions=dimensions and Dimensions(**dimensions))
    serve(Session(spec["module"], spec["options"], job), sys.stdin, answers)


if __name__ == "__main__":
    main()
