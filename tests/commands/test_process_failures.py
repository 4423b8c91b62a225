import re

import pytest

from vit_tf.commands.process_failures import REPORT, explain
from vit_tf.training.distribution.rendezvous import Rendezvous

FATAL = (
    "F1128 06:13:49.7 15188 client.h:80] Terminating process because the JAX distributed service detected "
)
FATAL += "fatal errors. absl::Status: "


@pytest.mark.parametrize(
    "report, expected",
    [
        (
            "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1\nThe tasks\n",
            "process 1 has ended or does not answer",
        ),
        (
            "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n1\n3\nThe tasks\n",
            "process 1, 3 has ended or does not answer",
        ),
        ("UNAVAILABLE: Failed to send RPC to coordination service.\n", "process 0 has ended"),
        ("ALREADY_EXISTS: Aborted connect attempt\n\nRPC: /RegisterTask\n", "the same --process-id"),
        ("DEADLINE_EXCEEDED: Deadline\n\nRPC: /RegisterTask\n", "no connection with all processes"),
        ("INTERNAL: something new\n", "cannot continue .INTERNAL: something new."),
    ],
)
def test_one_line(report, expected):
    line = explain(FATAL + report, Rendezvous("10.0.0.1:1234", 4, 2))
    assert "\n" not in line
    assert re.search(expected, line)


@pytest.mark.parametrize(
    "line, is_dropped",
    [
        (b"E1128 06:13:49.792399 15170 coordination_service.cc:1549] Use error polling\n", True),
        (b":UNKNOWN:Error received from peer {grpc_status:14}\n", True),
        (b"[Gloo] Rank 0 is connected to 1 peer ranks.\n", True),
        (b"error: 'pets' has no images\n", False),
        (b"warning: 3 files\n", False),
    ],
)
def test_lines_of_jax(line, is_dropped):
    assert bool(REPORT.search(line)) == is_dropped
