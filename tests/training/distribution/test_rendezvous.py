import socket

import pytest

from vit_tf.training.distribution.rendezvous import Rendezvous, find_rendezvous, require_free

THREE = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
SLURM = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "node[1-2]"}


@pytest.mark.parametrize(
    "given, environment, expected",
    [
        ((), {}, Rendezvous()),
        ((), THREE, Rendezvous("10.0.0.1:1234", 4, 3)),
        (("host:1", "2", "0"), {}, Rendezvous("host:1", 2, 0)),
        ((None, None, "1"), THREE, Rendezvous("10.0.0.1:1234", 4, 1)),  # an option comes first
        ((), SLURM, Rendezvous(None, 2, 1, is_automatic=True)),
        ((), {**SLURM, "SLURM_NTASKS": "1"}, Rendezvous()),
        ((), {**SLURM, **THREE}, Rendezvous("10.0.0.1:1234", 4, 3)),
    ],
)
def test_processes_are_found(given, environment, expected):
    assert find_rendezvous(*given, environment=environment) == expected


@pytest.mark.parametrize(
    "given, message",
    [
        (("host:1", "2"), "--process-id missing"),
        ((None, "2", "0"), "--coordinator-address missing"),
        (("host:1", "2", "2"), "--process-id must be below --num-processes, got 2 and 2"),
        (("host:1", "two", "0"), "--num-processes must be an integer of at least 1, got 'two'"),
        (("host:1", "0", "0"), "--num-processes must be an integer of at least 1"),
        (("host", "2", "0"), "--coordinator-address must be HOST:PORT"),
        (("host:99999", "2", "0"), "--coordinator-address must be HOST:PORT"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(ValueError, match=message) as error:
        find_rendezvous(*given, environment={})
    assert "\n" not in str(error.value)


def test_a_port_in_use():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot listen at port {port}"):
            require_free(f"127.0.0.1:{port}")
