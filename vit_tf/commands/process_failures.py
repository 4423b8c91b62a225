"""When one of several processes fails: the report of JAX as one line, and the end of the others.

JAX watches the processes of a run, and aborts all others when one has ended or does not answer. Its report
takes some thirty lines of the standard error.
"""

import os
import re
import sys
import time
from contextlib import contextmanager, nullcontext

from vit_tf.commands.startup import rewritten_stderr
from vit_tf.training.distribution.process_group import AgreedError
from vit_tf.training.distribution.rendezvous import HEARTBEAT_SECONDS, HINT

# The lines that JAX writes while it notices that a process is missing.
REPORT = re.compile(
    rb"^[WE]\d{4} .*(coordination_service|preemption_sync_manager|client\.h|gloo)"
    rb"|^(Additional GRPC error|:UNKNOWN:|RPC: /xla|The tasks have crashed)|^\d+\n$|^\[Gloo\]"
)
FATAL = re.compile(rb"^F\d{4} .*distributed service detected fatal errors")
COMMUNICATION = re.compile("(?i)gloo|nccl|coordination service|UNAVAILABLE:|DEADLINE_EXCEEDED:")
RESUME = "start all processes again with the same command to continue from the last checkpoint"


def failures_in_one_line(rendezvous):
    """A scope, around the import of JAX, in which its report of a failed process is one line."""
    if rendezvous.is_alone or "jax" in sys.modules or not hasattr(os, "fork"):
        return nullcontext()

    def rewrite(lines):
        for line in lines:
            if FATAL.search(line):
                report = b"".join([line, *lines]).decode(errors="replace")
                yield f"error: {explain(report, rendezvous)}\n".encode()
            elif not REPORT.search(line):
                yield line

    return rewritten_stderr(rewrite)


def explain(report, rendezvous):
    """Returns one line about the failure that JAX reports."""
    if stopped := re.search(r"stopped sending heartbeats\):\s*((?:[0-9]+[,\s]*)+)", report):
        ranks = ", ".join(re.findall("[0-9]+", stopped[1]))
        return (
            f"process {ranks} has ended or does not answer, and so process {rendezvous.rank} ends: {RESUME}"
        )
    where = f"process {rendezvous.rank} of {rendezvous.count}"
    if "ALREADY_EXISTS" in report:
        return f"{where}: another process has the same --process-id: {HINT}"
    if "RegisterTask" in report:
        place = rendezvous.coordinator or "the coordinator"
        missing = (
            "another process did not come" if rendezvous.rank == 0 else "no connection with all processes"
        )
        return f"{where}: {missing} to {place} in time: {HINT}"
    if "coordination service" in report or "Socket closed" in report:
        return f"process 0 has ended or does not answer, and so process {rendezvous.rank} ends: {RESUME}"
    status = re.search(r"absl::Status: (.*)", report)
    return f"{where} cannot continue ({status[1] if status else 'JAX aborted it'}): {RESUME}"


@contextmanager
def ending_together(rendezvous):
    """A scope in which the processes of a run end together, whether they are done or one has failed.

    Processes that are done, or that all raise an `AgreedError`, wait for each other. One that fails alone
    leaves at once, so that JAX tells the others. One whose communication fails waits until JAX tells which
    process has ended.
    """
    if rendezvous.is_alone:
        yield
        return
    try:
        yield
    except AgreedError:
        shut_down()
        raise
    except Exception as error:
        if COMMUNICATION.search(str(error)):
            time.sleep(2 * HEARTBEAT_SECONDS)  # JAX ends this process before
            raise ValueError(f"the communication with another process failed ({error}): {RESUME}") from error
        raise
    shut_down()


def shut_down():
    """Waits until all processes have come to their end."""
    if "jax" in sys.modules:
        import jax

        jax.distributed.shutdown()
