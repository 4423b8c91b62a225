"""How the processes of a run find each other: by options, by the environment, or by a cluster's scheduler."""

import os
import re
import socket
from dataclasses import dataclass

from vit_tf.checks import require, shown

HEARTBEAT_SECONDS = 30  # a process without a heartbeat for so long has stopped
VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "count": "JAX_NUM_PROCESSES",
    "rank": "JAX_PROCESS_ID",
}
OPTIONS = {"coordinator": "--coordinator-address", "count": "--num-processes", "rank": "--process-id"}
HINT = "start every process with the same --coordinator-address and --num-processes, and its own --process-id"


@dataclass(frozen=True)
class Rendezvous:
    """Where the processes of a run meet.

    Args:
        coordinator: "HOST:PORT" of the process 0; None if JAX finds it by the scheduler (`is_automatic`).
        count: int, the number of processes.
        rank: int, the number of this process.
        is_automatic: bool, whether JAX reads all three from the environment of SLURM or Open MPI.
    """

    coordinator: str | None = None
    count: int = 1
    rank: int = 0
    is_automatic: bool = False

    @property
    def is_alone(self) -> bool:
        return self.count == 1


def find_rendezvous(coordinator=None, count=None, rank=None, environment=os.environ, joins_tasks=True):
    """Returns the `Rendezvous` of this process.

    Values that are None are read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. Without
    any of them, the tasks of a SLURM step or of `mpirun` are the processes, unless `joins_tasks` is False.
    Without these there is one process.

    Raises:
        ValueError: some of the three values are missing, or they do not fit each other.
    """
    given = {"coordinator": coordinator, "count": count, "rank": rank}
    values = {
        name: value if value is not None else environment.get(VARIABLES[name])
        for name, value in given.items()
    }
    is_open = joins_tasks and values["count"] is None and values["rank"] is None
    if is_open and (found := scheduled_tasks(environment)):
        return found
    missing = [OPTIONS[name] for name, value in values.items() if value in (None, "")]
    if len(missing) == 3:
        return Rendezvous()
    require(not missing, f"{' and '.join(missing)} missing for a run of several processes: {HINT}")
    count, rank = whole_number("count", values["count"], 1), whole_number("rank", values["rank"], 0)
    require(rank < count, f"--process-id must be below --num-processes, got {rank} and {count}: {HINT}")
    return Rendezvous(check_address(values["coordinator"]), count, rank)


def scheduled_tasks(environment):
    """Returns the `Rendezvous` of a task of SLURM or Open MPI, None for a process outside of them."""
    for count, rank, step in (
        ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST"),
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_MCA_orte_hnp_uri"),
    ):
        if int(environment.get(count) or 1) > 1 and {rank, step} <= environment.keys():
            return Rendezvous(None, int(environment[count]), int(environment[rank]), is_automatic=True)
    return None


def whole_number(name, value, lowest):
    text = str(value)
    is_valid = re.fullmatch("[0-9]{1,9}", text) and int(text) >= lowest
    require(is_valid, f"{OPTIONS[name]} must be an integer of at least {lowest}, got {shown(value)}: {HINT}")
    return int(text)


def check_address(address):
    """Returns "HOST:PORT"; a ValueError for anything else."""
    host, _, port = address.rpartition(":")
    is_valid = host and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536
    require(is_valid, f"--coordinator-address must be HOST:PORT, such as 10.0.0.1:1234, got {shown(address)}")
    return address


def connect(rendezvous, timeout=300):
    """Connects this process with the others, before JAX computes anything.

    JAX aborts the process if the coordinator cannot be reached, a process is missing or two have the same
    number: `vit_tf.commands.process_failures` turns its report into one line.

    Args:
        rendezvous: a `Rendezvous` of several processes.
        timeout: int, seconds to wait for the others.

    Raises:
        ValueError: the coordinator's port is in use.
    """
    import jax

    # The CPU's default collectives work within one process alone.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Its threads log errors when a process ends. Training handles SIGTERM itself.
    jax.config.update("jax_enable_preemption_service", False)
    places = {}
    if not rendezvous.is_automatic:
        places = {"coordinator_address": rendezvous.coordinator, "num_processes": rendezvous.count}
        places["process_id"] = rendezvous.rank
        if rendezvous.rank == 0:
            require_free(rendezvous.coordinator)
    jax.distributed.initialize(
        **places,
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=HEARTBEAT_SECONDS,
    )


def require_free(coordinator):
    """Raises a ValueError if another program listens at the coordinator's port of this machine."""
    port = int(coordinator.rpartition(":")[2])
    with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ValueError(
                f"process 0 cannot listen at port {port} ({error.strerror}): choose another port in "
                "--coordinator-address, or end the program that uses it"
            ) from None
