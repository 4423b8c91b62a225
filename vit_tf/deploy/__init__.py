"""Where models run: export to other runtimes, quantization, prediction by a runtime, a service.

Whatever reads an exported folder (`Predictor`, the runtimes, the service) imports neither Keras nor
TensorFlow, unless the runtime is one of them.
"""

from typing import TYPE_CHECKING

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.deploy.exporting import export
    from vit_tf.deploy.manifest import Manifest, read_manifest
    from vit_tf.deploy.predictor import Predictor
    from vit_tf.deploy.quantizing import quantize

__all__ = ["Manifest", "Predictor", "export", "quantize", "read_manifest"]
__getattr__, __dir__ = lazy_exports(__name__)
