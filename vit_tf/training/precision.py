"""Which precision a machine is fast in."""

from pathlib import Path

import keras


def fast_bfloat16():
    """Whether training in bfloat16 is faster than in float32 here, as far as can be told.

    On TensorFlow's CPU it is where the processor multiplies bfloat16 itself (AVX-512 BF16, AMX); on a GPU or
    TPU, too. On the CPU the other backends take longer with it.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not (tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU")):
            return bool({"avx512_bf16", "amx_bf16"} & processor_flags())
        return True
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    import torch

    return torch.cuda.is_available()


def processor_flags():
    """Returns the names of the processor's instruction sets; none where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return set(text.partition("flags")[2].partition("\n")[0].split())
