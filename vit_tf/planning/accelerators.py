"""The table of devices: memory, peak speed and links, one line each, from the makers' data sheets."""

from dataclasses import dataclass

GB, TFLOPS = 10**9, 10**12


@dataclass(frozen=True)
class Device:
    """A device that trains: a GPU, a TPU chip or a CPU core.

    Args:
        memory: bytes.
        bfloat16, float32: peak FLOP/s of dense matrix products. "float32" is what JAX and TensorFlow use by
            default for float32 tensors: TF32 on NVIDIA's GPUs from Ampere on, one bfloat16 pass on TPUs.
        link: bytes per second and direction, from a device to the others of its host.
        network: bytes per second and direction of all devices of a host together, to other hosts.
        devices_per_host: int, of the maker's usual machine.
        efficiency: fraction of the peak that training is assumed to reach.
        has_fused_attention: bool, whether vit_tf's attention in bfloat16 keeps no scores on it.
        about: str, what it is.
    """

    memory: float
    bfloat16: float
    float32: float
    link: float
    network: float
    devices_per_host: int
    efficiency: float
    has_fused_attention: bool
    about: str

    def peak(self, precision: str) -> float:
        """Returns the peak FLOP/s in "bfloat16" or "float32"."""
        return self.bfloat16 if precision == "bfloat16" else self.float32


# docs/results/gpu.md: 3,491 images/s of ViT-B/16 on an H200, times 105.4 GFLOPs, of 989.4 TFLOP/s.
MEASURED_ON_H200 = 0.37
# An AdamW step of ViT-B/16 reaches 81 to 90 % of the matrix products (docs/results/speed.md).
MEASURED_ON_CPU = 0.85


def device(memory, bfloat16, float32, link, network, per_host, fused, about, efficiency=MEASURED_ON_H200):
    """Returns a `Device` from GB, TFLOP/s and GB/s."""
    speeds = (bfloat16 * TFLOPS, float32 * TFLOPS, link * GB, network * GB)
    return Device(memory * GB, *speeds, per_host, efficiency, fused, about)


DEVICES = {
    # Data sheets of the GPUs; half of the bidirectional NVLink bandwidth; networks of NVIDIA's DGX machines.
    # DGX A100: NVLink 600 GB/s, eight adapters of 200 Gb/s.
    "a100-40": device(40, 312, 156, 300, 200, 8, True, "NVIDIA A100 SXM 40 GB"),
    "a100-80": device(80, 312, 156, 300, 200, 8, True, "NVIDIA A100 SXM 80 GB"),
    # DGX H100 and H200: NVLink 900 GB/s, eight adapters of 400 Gb/s. 989 is without sparsity.
    "h100": device(80, 989.4, 494.7, 450, 400, 8, True, "NVIDIA H100 SXM"),
    "h200": device(141, 989.4, 494.7, 450, 400, 8, True, "NVIDIA H200 SXM"),
    # PCIe 4.0 x16, 64 GB/s in both directions. 100 Gb/s between hosts is an assumption.
    "l4": device(24, 121, 60, 32, 12.5, 8, True, "NVIDIA L4"),
    # PCIe 3.0 x16. 100 Gb/s is an assumption. No bfloat16 units: it runs as float32 does.
    "t4": device(16, 8.1, 8.1, 16, 12.5, 8, False, "NVIDIA T4"),
    # DGX-1: NVLink 300 GB/s, four adapters of 100 Gb/s. No bfloat16 units.
    "v100": device(32, 15.7, 15.7, 150, 50, 8, False, "NVIDIA V100 SXM2 32 GB"),
    # https://cloud.google.com/tpu/docs/v5e: 400 GB/s bidirectional. The same links join the hosts.
    "v5e": device(16, 197, 197, 200, 1600, 8, False, "Google TPU v5e, one chip"),
    # https://cloud.google.com/tpu/docs/v5p: 1,200 GB/s bidirectional, hosts of four chips.
    "v5p": device(95, 459, 459, 600, 2400, 4, False, "Google TPU v5p, one chip"),
    # Data sheet: seven links of 128 GB/s bidirectional; float32 matrix units. Eight adapters of 400 Gb/s.
    "mi300x": device(192, 1307.4, 163.4, 448, 400, 8, False, "AMD Instinct MI300X"),
    # docs/results/speed.md: two cores multiply matrices at 220 and 411 GFLOP/s. Gloo over
    # loopback sums up one large array at about 0.5 GB/s, many small ones far more slowly.
    "cpu-core": device(8, 0.206, 0.11, 0.7, 0.7, 2, False, "a core of an AMD EPYC", MEASURED_ON_CPU),
}
