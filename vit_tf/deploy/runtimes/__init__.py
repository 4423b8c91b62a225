"""The runtimes that predict with exported folders: one interface, a module per runtime.

Importing the package imports none of them. Only `keras` and `savedmodel` need TensorFlow or Keras.
"""

from typing import TYPE_CHECKING

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.deploy.runtimes.interface import Runtime, Signature
    from vit_tf.deploy.runtimes.opening import RUNTIMES, choose_keras, choose_runtime, open_runtime

__all__ = ["RUNTIMES", "Runtime", "Signature", "choose_keras", "choose_runtime", "open_runtime"]
__getattr__, __dir__ = lazy_exports(__name__)
