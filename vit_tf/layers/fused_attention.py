"""softmax(Q K^T) V by a kernel of the backend that keeps no scores.

Shapes in the comments: b batch, n tokens, H heads, k head width.
"""

import keras
from keras import ops

from vit_tf.layers.chunked_attention import is_half


def has_fused_attention(dtype, head_width):
    """Returns whether `fused_attention` is such a kernel, on this backend and device.

    Args:
        dtype: name of the compute dtype.
        head_width: int, k. cuDNN takes multiples of 8 up to 128 on every GPU from Ampere on.
    """
    if keras.backend.backend() != "jax":
        return keras.backend.backend() == "torch"
    import jax

    if not is_half(dtype) or jax.default_backend() not in ("gpu", "tpu"):
        return False
    if jax.default_backend() == "tpu":
        return True
    capability = getattr(jax.devices()[0], "compute_capability", None) or "0"
    return float(capability) >= 8 and head_width % 8 == 0 and head_width <= 128


def fused_attention(query, key, value, scale):
    """Returns softmax(scale Q K^T) V, `(b, n, H, k)`.

    Args:
        query, key, value: tensors `(b, n, H, k)`.
        scale: float.
    """
    if keras.backend.backend() == "jax" and query.shape[1] % 2:
        import jax

        if jax.default_backend() == "gpu":
            return padded_attention(query, key, value, scale, "cudnn")
    return ops.dot_product_attention(query, key, value, scale=scale)


def padded_attention(query, key, value, scale, implementation):
    """Returns the same by `jax.nn.dot_product_attention`, over one more token, which is masked.

    cuDNN's backward pass takes an even number of tokens only, and a ViT with a class token has an odd one.

    Args:
        query, key, value, scale: see `fused_attention`.
        implementation: "cudnn", or "xla", which computes the same on every device.
    """
    import jax

    b, n = query.shape[:2]
    query, key, value = (ops.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value))
    lengths = jax.numpy.full((b,), n, "int32")
    x = jax.nn.dot_product_attention(
        query, key, value, scale=scale, key_value_seq_lengths=lengths, implementation=implementation
    )
    return x[:, :n]
