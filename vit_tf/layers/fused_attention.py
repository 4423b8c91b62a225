"""softmax(Q K^T) V by a fused kernel of the backend, which keeps no scores.

Shapes in the comments: b batch, n tokens, H heads, k head width.
"""

import keras
from keras import ops

from vit_tf.layers.chunked_attention import is_half


def has_fused_attention(dtype, head_width):
    """Returns whether the backend has a fused kernel for this dtype and head width on this device.

    Args:
        dtype: name of the compute dtype.
        head_width: int, k. cuDNN supports multiples of 8 up to 128, on GPUs from Ampere on.
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
    """Returns softmax(scale Q K^T) V.

    Args:
        query, key, value: tensors `(b, n, H, k)`.
        scale: float.

    Returns:
        A tensor `(b, n, H, k)`.
    """
    if keras.backend.backend() == "jax" and query.shape[1] % 2:
        import jax

        if jax.default_backend() == "gpu":
            return padded_attention(query, key, value, scale, "cudnn")
    return ops.dot_product_attention(query, key, value, scale=scale)


def padded_attention(query, key, value, scale, implementation):
    """`fused_attention` by `jax.nn.dot_product_attention`, with one more, masked token.

    The backward pass of cuDNN supports only even numbers of tokens. A ViT with a class token often has an odd
    number.

    Args:
        query, key, value, scale: see `fused_attention`.
        implementation: "cudnn", or "xla", which computes the same function on every device.
    """
    import jax

    b, n = query.shape[:2]
    query, key, value = (ops.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value))
    lengths = jax.numpy.full((b,), n, "int32")
    x = jax.nn.dot_product_attention(
        query, key, value, scale=scale, key_value_seq_lengths=lengths, implementation=implementation
    )
    return x[:, :n]
