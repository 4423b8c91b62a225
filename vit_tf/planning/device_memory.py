"""The memory of a training step on one device."""

from dataclasses import asdict, dataclass

from vit_tf.planning.workload import Workload

# Tensors that a step keeps per tensor that `count_flops` counts: (scores, inner values of MLPs, others).
# Fitted to what XLA allocates for training steps of ViTs in float32 on a CPU, and in bfloat16 to what JAX's
# differentiation keeps: parts of norms and softmax stay float32 there. `benchmarks/plan_check.py` compares.
KEPT = {"float32": (1.5, 2.1, 1.8), "bfloat16": (1.5, 2.0, 2.5)}


@dataclass(frozen=True)
class StepMemory:
    """The memory of a step in bytes.

    Args:
        weights: in float32, and under bfloat16 their copies for matrix products.
        gradients: of float32.
        moments: of the optimizer.
        averages: of the weights, if a run keeps them.
        per_image: activations and pixels of an image.
        images: images that the device, or its model-parallel group, works on at once.
    """

    weights: float
    gradients: float
    moments: float
    averages: float
    per_image: float
    images: float

    @property
    def activations(self) -> float:
        return self.per_image * self.images

    @property
    def fixed(self) -> float:
        """What does not depend on the batch."""
        return self.weights + self.gradients + self.moments + self.averages

    @property
    def total(self) -> float:
        return self.fixed + self.activations

    def most_images(self, available: float) -> int:
        """Returns how many images fit into a number of bytes."""
        return max(0, int((available - self.fixed) // self.per_image))

    def to_dict(self) -> dict:
        return {**asdict(self), "activations": self.activations, "total": self.total}


def step_memory(
    workload: Workload,
    images: float,
    precision: str = "float32",
    optimizer: str = "adamw",
    ema: bool = False,
    degree: int = 1,
    remat: bool = False,
    fused_attention: bool = False,
) -> StepMemory:
    """Returns the memory of a training step on one device.

    Args:
        workload: a `Workload`.
        images: images that the device, or its group of `degree` devices, works on at once.
        precision: "float32" or "bfloat16", of the computation.
        optimizer: "adamw", "sgd" or "muon".
        ema: bool, whether an average of the weights is kept.
        degree: int, devices among which a model-parallel layout splits the matrices of the blocks.
        remat: bool, whether blocks keep their inputs alone.
        fused_attention: bool, whether attention keeps no scores.
    """
    parameters = workload.parameters_per_device(degree)
    moments = 4 * parameters if optimizer == "sgd" else 8 * parameters
    if optimizer == "muon":  # one moment of each matrix of the blocks
        moments -= 4 * workload.matrix_parameters / degree
    return StepMemory(
        weights=(6 if precision == "bfloat16" else 4) * parameters,
        gradients=4 * parameters,
        moments=moments,
        averages=4 * parameters * ema,
        per_image=image_bytes(workload, precision, degree, remat, fused_attention),
        images=images,
    )


def image_bytes(workload, precision, degree, remat, fused_attention):
    """Returns the bytes of an image and of its activations on one device."""
    size = 2 if precision == "bfloat16" else 4
    scores, hidden, others = KEPT[precision]
    blocks = scores * workload.scores / degree * (not fused_attention)
    blocks += hidden * workload.hidden / degree
    blocks += others * (workload.heads / degree + workload.whole)
    if remat:  # the inputs of all blocks, and one block whose activations are there again
        blocks = workload.num_blocks * workload.tokens + blocks / workload.num_blocks
    return size * (blocks + others * workload.outside) + 4 * workload.pixels
