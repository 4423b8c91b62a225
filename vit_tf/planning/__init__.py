"""Planning a training run on other machines: time, memory, communication and input, before it starts.

`measure_workload` counts a model, `estimate` combines the counts with a `Job` and a `Cluster` into a `Plan`.
All but `measure_workload` are formulas on plain numbers, and need no Keras. The guide "Plan a training run"
has each formula, its source, and how near it was to measurements.
"""

from vit_tf.planning.accelerators import DEVICES, Device
from vit_tf.planning.cluster import Cluster, Job, Speed
from vit_tf.planning.communication import ring_all_reduce_bytes
from vit_tf.planning.device_memory import StepMemory, step_memory
from vit_tf.planning.image_sets import IMAGE_SETS, ImageSet
from vit_tf.planning.layout_estimates import LayoutEstimate, Plan, estimate
from vit_tf.planning.measured_speed import read_measured_speed
from vit_tf.planning.workload import Workload, measure_workload

__all__ = [
    "DEVICES",
    "IMAGE_SETS",
    "Cluster",
    "Device",
    "ImageSet",
    "Job",
    "LayoutEstimate",
    "Plan",
    "Speed",
    "StepMemory",
    "Workload",
    "estimate",
    "measure_workload",
    "read_measured_speed",
    "ring_all_reduce_bytes",
    "step_memory",
]
