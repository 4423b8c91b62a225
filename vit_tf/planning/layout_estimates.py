"""`estimate`: the layouts of a run compared, and which of them is the fastest that fits."""

from dataclasses import asdict, dataclass

from vit_tf.checks import check_choice, check_int, require
from vit_tf.planning.cluster import LINK_EFFICIENCY, Cluster, Job, Speed
from vit_tf.planning.communication import activation_bytes, communication_seconds, gradient_bytes
from vit_tf.planning.device_memory import StepMemory, step_memory
from vit_tf.planning.image_sets import images_per_core
from vit_tf.planning.workload import Workload

LAYOUTS, DEGREES = ("auto", "data", "model"), (2, 4, 8)
USABLE = 0.9  # of a device's memory: the runtime, its libraries and fragmentation take the rest
FUSED_WIDTH = 128  # of a head, at most: see `vit_tf.layers.fused_attention`


@dataclass(frozen=True)
class LayoutEstimate:
    """One layout of a run, with or without rematerialisation.

    Args:
        degree: int, devices that share one copy of the model; 1 is data parallel.
        remat: bool, whether blocks compute their activations again in the backward pass.
        memory: `StepMemory` of a device.
        fits: bool, whether 90 % of a device's memory is enough.
        largest_batch: int, images per step on all devices together that still fit.
        compute_seconds, communication_seconds: of a step.
        gradient_bytes, activation_bytes: what each device sends per step.
        images_per_second: of all devices together.
        hours: of all epochs.
        device_hours: `hours` times the number of devices.
    """

    degree: int
    remat: bool
    memory: StepMemory
    fits: bool
    largest_batch: int
    compute_seconds: float
    communication_seconds: float
    gradient_bytes: float
    activation_bytes: float
    images_per_second: float
    hours: float
    device_hours: float

    @property
    def step_seconds(self) -> float:
        return self.compute_seconds + self.communication_seconds

    @property
    def communication_share(self) -> float:
        return self.communication_seconds / self.step_seconds

    @property
    def name(self) -> str:
        return "data" if self.degree == 1 else f"model {self.degree}"

    def to_dict(self) -> dict:
        derived = {name: getattr(self, name) for name in ("step_seconds", "communication_share")}
        return {"layout": self.name, **asdict(self), "memory": self.memory.to_dict(), **derived}


@dataclass(frozen=True)
class Plan:
    """A run on a cluster.

    Args:
        workload, job, cluster, speed: what `estimate` was given.
        cores_rate: images/s that a CPU core decodes and augments.
        layouts: a tuple of `LayoutEstimate`.
        recommended: the fastest layout that fits; None if none does.
        assumptions: a tuple of sentences.
    """

    workload: Workload
    job: Job
    cluster: Cluster
    speed: Speed
    cores_rate: float
    layouts: tuple[LayoutEstimate, ...]
    recommended: LayoutEstimate | None
    assumptions: tuple[str, ...]

    @property
    def fastest(self) -> LayoutEstimate:
        """The recommended layout; the fastest of all if none fits."""
        return self.recommended or min(self.layouts, key=lambda layout: layout.hours)

    @property
    def input_rates(self) -> dict[str, float]:
        """What the input must deliver to all devices: images/s, bytes/s, and the CPU cores for that."""
        images = self.fastest.images_per_second
        size = self.job.image_set.image_bytes
        return {
            "images_per_second": images,
            "bytes_per_second": images * size,
            "cores": images / self.cores_rate,
            "cores_per_host": images / self.cores_rate / self.cluster.hosts,
        }

    def to_dict(self) -> dict:
        """Returns the plan as dicts, lists and numbers, for JSON."""
        return {
            "workload": asdict(self.workload),
            "job": {**asdict(self.job), "steps": self.job.steps},
            "cluster": {**asdict(self.cluster), "devices_per_host": self.cluster.per_host},
            "speed": asdict(self.speed),
            "layouts": [layout.to_dict() for layout in self.layouts],
            "recommended": self.recommended and self.recommended.to_dict(),
            "input": self.input_rates,
            "assumptions": list(self.assumptions),
        }


def choose_degrees(job, cluster, heads, layout="auto", degree=None):
    """Returns the degrees of model parallelism to compare, of which 1 is data parallel.

    Args:
        job, cluster: see `estimate`.
        heads: ints that a degree must divide: numbers of attention heads.
        layout: "auto", "data" or "model".
        degree: int, the only degree of the layout "model"; None: those of 2, 4 and 8 that are possible.

    Raises:
        ValueError: a degree, or the batch, cannot be divided.
    """
    check_choice("--layout", layout, LAYOUTS)
    check_int("--model-parallel", degree, 2, optional=True)
    require(degree is None or layout != "data", "--model-parallel goes with --layout model, not data")
    degrees = DEGREES if degree is None else (degree,)
    possible = [k for k in degrees if why_not(job, cluster, heads, k) is None]
    if degree is not None or (layout == "model" and not possible):
        problem = why_not(job, cluster, heads, degrees[0])
        require(problem is None, f"{problem}: choose another --model-parallel, --devices or --batch-size")
    if layout == "model":
        return possible
    problem = why_not(job, cluster, heads, 1)
    require(problem is None, f"{problem}: choose another --batch-size")
    return [1] if layout == "data" else [1, *possible]


def why_not(job, cluster, heads, degree):
    """Returns why a degree is impossible, None if it is possible."""
    if any(number % degree for number in heads):
        return f"{' and '.join(map(str, heads))} attention heads cannot be split among {degree} devices"
    if cluster.devices % degree:
        return f"--devices {cluster.devices} cannot be split into groups of {degree}"
    groups = cluster.devices // degree
    if job.batch_size % groups:
        of_devices = f"{groups} devices" if degree == 1 else f"{groups} groups of {degree} devices"
        return f"a batch of {job.batch_size} cannot be divided among {of_devices}"
    return None


def estimate(
    workload: Workload,
    job: Job,
    cluster: Cluster,
    speed: Speed,
    degrees: tuple[int, ...] = (1,),
    remat: bool | None = None,
    cores_rate: float | None = None,
) -> Plan:
    """Returns the plan of a run.

    Args:
        workload: of `measure_workload`.
        job: what to train on.
        cluster: where.
        speed: how fast a device trains.
        degrees: degrees of model parallelism to compare; 1 is data parallel.
        remat: True compares layouts with rematerialisation alone; None: with and without.
        cores_rate: images/s that a CPU core decodes and augments; None: by the size of the files.
    """
    remats = (True,) if remat else (False, True)
    layouts = tuple(
        estimate_layout(workload, job, cluster, speed, degree, flag) for degree in degrees for flag in remats
    )
    fitting = [layout for layout in layouts if layout.fits]
    rate = cores_rate or images_per_core(job.image_set.image_bytes)
    best = min(fitting, key=lambda layout: (layout.hours, layout.degree), default=None)
    assumptions = tuple(list_assumptions(workload, job, cluster, speed, layouts, rate))
    return Plan(workload, job, cluster, speed, rate, layouts, best, assumptions)


def estimate_layout(workload, job, cluster, speed, degree, remat):
    """Returns the `LayoutEstimate` of a degree."""
    groups = cluster.devices // degree
    options = (job.precision, job.optimizer, job.ema, degree, remat, is_fused(workload, job, cluster))
    memory = step_memory(workload, job.batch_size // groups, *options)
    usable = USABLE * cluster.device.memory
    compute = job.batch_size * workload.training_flops(remat) / cluster.devices / speed.flops
    communication = communication_seconds(workload, job, cluster, degree, remat)
    hours = job.steps * (compute + communication) / 3600
    return LayoutEstimate(
        degree=degree,
        remat=remat,
        memory=memory,
        fits=memory.total <= usable,
        largest_batch=groups * memory.most_images(usable),
        compute_seconds=compute,
        communication_seconds=communication,
        gradient_bytes=gradient_bytes(workload, cluster, degree),
        activation_bytes=activation_bytes(workload, job, cluster, degree, remat),
        images_per_second=job.batch_size / (compute + communication),
        hours=hours,
        device_hours=hours * cluster.devices,
    )


def is_fused(workload, job, cluster):
    """Returns whether the attention of vit_tf keeps no scores on the device, see `fused_attention`."""
    fits = workload.head_width % 8 == 0 and workload.head_width <= FUSED_WIDTH
    return job.precision == "bfloat16" and cluster.device.has_fused_attention and fits


def list_assumptions(workload, job, cluster, speed, layouts, rate):
    """Yields what a plan assumes, as sentences without a capital and a full stop."""
    yield speed.source
    if cluster.devices > 1:
        bandwidth = cluster.bandwidth(cluster.devices) / 1e9
        where = "between hosts" if cluster.hosts > 1 else "between devices"
        share = "as given" if cluster.link else f"{LINK_EFFICIENCY:.0%} of the data sheet".replace("%", " %")
        yield f"an all-reduce reaches {bandwidth:,.4g} GB/s {where} ({share}), without latency"
        yield "no all-reduce runs during computation"
    if job.precision == "bfloat16":
        kept = "keeps no scores (fused)" if is_fused(workload, job, cluster) else "keeps its scores"
        yield f"attention {kept}; weights, gradients and moments are float32"
    yield f"{USABLE:.0%} of the {cluster.device.memory / 1e9:,.0f} GB can be used".replace("%", " %", 1)
    if any(layout.degree > 1 for layout in layouts):
        yield "model parallelism splits the matrices of the blocks and the head, and computes as efficiently"
    yield f"a CPU core decodes and augments {rate:,.0f} images/s"
    yield "evaluation, checkpoints and compiling take no time"
