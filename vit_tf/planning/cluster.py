"""What a plan is for: the job, the devices, and how fast they are."""

from dataclasses import dataclass

from vit_tf.checks import check_choice, check_int, check_number, require
from vit_tf.planning.accelerators import DEVICES, Device
from vit_tf.planning.image_sets import ImageSet

OPTIMIZERS, PRECISIONS = ("adamw", "sgd", "muon"), ("float32", "bfloat16")
LINK_EFFICIENCY = 0.8  # of a data sheet's bandwidth that an all-reduce reaches


@dataclass(frozen=True)
class Job:
    """A training run.

    Args:
        image_set: an `ImageSet`.
        epochs: int.
        batch_size: int, images per step on all devices together.
        optimizer: "adamw", "sgd" or "muon".
        precision: "float32" or "bfloat16", of the computation; weights are float32.
        ema: bool, whether an average of the weights is kept.

    Raises:
        ValueError: a value is out of range.
    """

    image_set: ImageSet
    epochs: int = 300
    batch_size: int = 1024
    optimizer: str = "adamw"
    precision: str = "bfloat16"
    ema: bool = False

    def __post_init__(self):
        check_int("--images", self.image_set.images, 1, 10**12)
        check_number("--image-kb", self.image_set.image_bytes, "(0, inf)")
        check_int("--epochs", self.epochs, 1)
        check_int("--batch-size", self.batch_size, 1)
        check_choice("--optimizer", self.optimizer, OPTIMIZERS)
        check_choice("--precision", self.precision, PRECISIONS)

    @property
    def steps(self) -> int:
        """The steps of all epochs; the last batch of an epoch may be smaller."""
        return self.epochs * -(-self.image_set.images // self.batch_size)


@dataclass(frozen=True)
class Speed:
    """How fast one device trains.

    Args:
        flops: FLOP/s that training reaches.
        source: str, where the number is from, for the list of assumptions.
    """

    flops: float
    source: str


@dataclass(frozen=True)
class Cluster:
    """The devices of a run.

    Args:
        device_name: a key of `DEVICES`.
        devices: int, how many.
        devices_per_host: int; None for the device's.
        link: measured bytes per second of an all-reduce (the "bus bandwidth" of nccl-tests) between hosts,
            or on a single host between its devices; None: 80 % of the data sheet's.

    Raises:
        ValueError: an unknown device, or a number that is out of range or does not fit the others.
    """

    device_name: str
    devices: int = 1
    devices_per_host: int | None = None
    link: float | None = None

    def __post_init__(self):
        check_choice("--device", self.device_name, DEVICES)
        check_int("--devices", self.devices, 1)
        check_int("--devices-per-host", self.devices_per_host, 1, optional=True)
        check_number("--link", self.link, "(0, inf)", optional=True)
        require(
            self.devices % self.per_host == 0,
            f"--devices {self.devices} do not fill hosts of {self.per_host} each: give --devices-per-host, "
            "or another number",
        )

    @property
    def device(self) -> Device:
        return DEVICES[self.device_name]

    @property
    def per_host(self) -> int:
        """The devices of each host."""
        return min(self.devices, self.devices_per_host or self.device.devices_per_host)

    @property
    def hosts(self) -> int:
        return self.devices // self.per_host

    def bandwidth(self, group: int, rings: int = 1) -> float:
        """Returns the bytes per second of an all-reduce in groups of devices.

        Args:
            group: int, devices on consecutive places of a group.
            rings: int, how many groups share a host's network at the same time.
        """
        inside = LINK_EFFICIENCY * self.device.link
        if self.hosts == 1 or group <= self.per_host:
            return inside if self.link is None or self.hosts > 1 else self.link
        if self.link is None:
            return min(inside, LINK_EFFICIENCY * self.device.network / rings)
        return self.link / rings


def assumed_speed(device: Device, precision: str, efficiency: float | None = None) -> Speed:
    """Returns the `Speed` of a device at a fraction of its peak; None for the fraction of the table."""
    check_number("--efficiency", efficiency, "(0, 1]", optional=True)
    share = device.efficiency if efficiency is None else efficiency
    peak = device.peak(precision)
    unit = f"{peak / 1e12:,.4g} TFLOP/s" if peak >= 1e12 else f"{peak / 1e9:,.4g} GFLOP/s"
    return Speed(share * peak, f"training reaches {100 * share:.3g} % of the peak of {unit} in {precision}")
