"""The cost of a Vision Transformer: floating-point operations, parameters, activation memory.

FLOPs, not MACs: a multiply-add is two floating-point operations. Papers often call MACs FLOPs; ViT-B/16 at
224 pixels takes 17.6 GMACs per image, which are 35.1 GFLOPs.
`count_flops` makes a table by component, from shapes alone, on every backend. `get_flops` runs TensorFlow's
profiler on any Keras model, with the TensorFlow backend only.
"""

from vit_tf.flops.count import count_flops
from vit_tf.flops.memory_estimate import require_memory, training_bytes
from vit_tf.flops.profiler import flops_by_operation, get_flops, inference_graph
from vit_tf.flops.table import COMPONENTS, FlopsTable, Row

__all__ = [
    "COMPONENTS",
    "FlopsTable",
    "Row",
    "count_flops",
    "flops_by_operation",
    "get_flops",
    "inference_graph",
    "require_memory",
    "training_bytes",
]
