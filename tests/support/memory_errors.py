"""Errors of libraries that ran out of memory."""

TINY = dict(image_size=16, patch_size=8, num_layers=2, hidden_dim=16, num_heads=2, mlp_dim=16, num_classes=3)


def error_of(name, message, base=RuntimeError):
    return type(name, (base,), {})(message)


TENSORFLOW = "{{node m/dense/MatMul}} OOM when allocating tensor with shape[8,12,9,9] and type float on x"
RAISED = [
    MemoryError("Unable to allocate 3.73 GiB for an array with shape (1, 2)"),
    error_of("ResourceExhaustedError", TENSORFLOW, Exception),
    error_of("XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory allocating 123456 bytes."),
    error_of("OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 40000 bytes."),
]
