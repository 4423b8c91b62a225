import numpy as np
import pytest

from vit_tf.planning import Cluster, ImageSet, Job, ring_all_reduce_bytes
from vit_tf.planning.communication import activation_bytes, communication_seconds, gradient_bytes

GB = 1e9


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_a_ring_sends_what_the_formula_says(devices):
    """Each device passes on one of n parts, n - 1 times to sum up and n - 1 times to hand out."""
    values = np.random.default_rng(0).integers(0, 100, (devices, 8 * devices)).astype("int64")
    parts = [np.split(row.copy(), devices) for row in values]
    sent = 0
    for phase in range(2):
        for step in range(devices - 1):
            moved = [(i, (i + phase - step) % devices) for i in range(devices)]
            data = {(i, part): parts[i][part].copy() for i, part in moved}
            for i, part in moved:
                target = parts[(i + 1) % devices]
                target[part] = data[i, part] + (0 if phase else target[part])
            sent += data[0, moved[0][1]].nbytes
    for row in parts:
        np.testing.assert_array_equal(np.concatenate(row), values.sum(0))
    assert sent == ring_all_reduce_bytes(values[0].nbytes, devices)


def test_gradients_are_float32(vit_b16):
    assert gradient_bytes(vit_b16, Cluster("h100")) == 0
    assert gradient_bytes(vit_b16, Cluster("h100", 8)) == 1.75 * 4 * 86_567_656
    split = gradient_bytes(vit_b16, Cluster("h100", 8), degree=4)  # two copies of the model
    assert split == 4 * vit_b16.parameters_per_device(4)


def test_blocks_sum_up_activations_four_times(vit_b16):
    job, cluster = Job(ImageSet(10**6, 1e5), batch_size=256), Cluster("h100", 8)
    assert activation_bytes(vit_b16, job, cluster, 1, False) == 0
    tokens = 64 * 197 * 768 * 2  # of 64 images in bfloat16
    assert activation_bytes(vit_b16, job, cluster, 2, False) == 12 * 4 * tokens
    assert activation_bytes(vit_b16, job, cluster, 2, True) == 12 * 6 * tokens
    assert activation_bytes(vit_b16, job, cluster, 4, False) == 12 * 4 * 1.5 * 2 * tokens


def test_the_slowest_link_counts(vit_b16):
    one_host, hosts = Cluster("a100-80", 8), Cluster("a100-80", 64)
    assert (one_host.hosts, hosts.hosts) == (1, 8)
    assert one_host.bandwidth(8) == 0.8 * 300 * GB
    assert hosts.bandwidth(64) == 0.8 * 200 * GB and hosts.bandwidth(8) == 0.8 * 300 * GB
    assert hosts.bandwidth(64, rings=4) == 0.8 * 50 * GB
    assert Cluster("a100-80", 64, link=90 * GB).bandwidth(64) == 90 * GB
    assert Cluster("a100-80", 64, link=90 * GB).bandwidth(8) == 0.8 * 300 * GB
    assert Cluster("a100-80", 8, link=90 * GB).bandwidth(8) == 90 * GB
    job = Job(ImageSet(10**6, 1e5))
    seconds = communication_seconds(vit_b16, job, one_host, 1, False)
    assert seconds == pytest.approx(1.75 * 4 * 86_567_656 / 240e9)
    # Four devices of a host each sum up a quarter of the matrices, over the same network.
    split = communication_seconds(vit_b16, job, hosts, 4, False)
    gradients = gradient_bytes(vit_b16, hosts, 4) / (0.8 * 50 * GB)
    assert split == pytest.approx(gradients + activation_bytes(vit_b16, job, hosts, 4, False) / 240e9)
