"""The bytes that all-reduces send per step, and the time they take."""

from vit_tf.planning.cluster import Cluster, Job
from vit_tf.planning.workload import Workload


def ring_all_reduce_bytes(num_bytes: float, devices: int) -> float:
    """Returns what each device sends when a ring of devices sums up an array: 2 (n - 1) / n of its bytes.

    Reference: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations",
    2009, https://doi.org/10.1016/j.jpdc.2008.09.002.
    """
    return 2 * (devices - 1) / devices * num_bytes


def gradient_bytes(workload: Workload, cluster: Cluster, degree: int = 1) -> float:
    """Returns what each device sends per step to sum up the gradients, which are float32."""
    own = 4 * workload.parameters_per_device(degree)
    return ring_all_reduce_bytes(own, cluster.devices // degree)


def activation_bytes(workload: Workload, job: Job, cluster: Cluster, degree: int, remat: bool) -> float:
    """Returns what each device sends per step to sum up activations in model-parallel layouts.

    Each block sums up the outputs of attention and MLP in the forward pass, and the gradients of their inputs
    in the backward pass (Shoeybi et al., "Megatron-LM", https://arxiv.org/abs/1909.08053, section 3).
    Rematerialisation repeats the forward pass.
    """
    size = 2 if job.precision == "bfloat16" else 4
    tokens = job.batch_size * degree // cluster.devices * workload.tokens * size
    return (6 if remat else 4) * workload.num_blocks * ring_all_reduce_bytes(tokens, degree)


def communication_seconds(workload: Workload, job: Job, cluster: Cluster, degree: int, remat: bool) -> float:
    """Returns the time of all all-reduces of a step, without their latencies."""
    activations = activation_bytes(workload, job, cluster, degree, remat)
    # As many groups sum up their gradients at once as a host has devices of different parts of the model.
    rings = min(degree, cluster.per_host)
    gradients = gradient_bytes(workload, cluster, degree) / cluster.bandwidth(cluster.devices, rings)
    return gradients + activations / cluster.bandwidth(degree)
