"""Opening a source of weights (file, folder, `hf:` or packaged) and reading its tensors and configuration."""

from vit_tf.hub.sources import PACKAGED, Checkpoint, is_keras_file, open_checkpoint, read_source_config

__all__ = ["PACKAGED", "Checkpoint", "is_keras_file", "open_checkpoint", "read_source_config"]
