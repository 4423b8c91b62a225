"""Biases of zeros, for layers that have a bias in timm's names and none in a format's."""


def head_without_bias(kernel):
    """Returns the tensors of a head with a kernel `(out, in)`."""
    return {"head.weight": kernel, "head.bias": zeros_beside(kernel)}


def zeros_beside(kernel):
    """Returns a bias of zeros for a kernel `(out, in)`."""
    return kernel[:, :1].reshape(-1).map(lambda x: 0 * x, kernel.shape[:1])
