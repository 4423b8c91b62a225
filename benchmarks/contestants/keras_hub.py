"""keras-hub's ViT with its classifier."""

import keras_hub

from contestants.keras_models import built, set_precision


def build(job, xla=False):
    set_precision(job)
    size = job.dimensions
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(job.image_size, job.image_size, 3),
        patch_size=size.patch_size,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        hidden_dim=size.hidden_dim,
        mlp_dim=size.mlp_dim,
    )
    return built(keras_hub.models.ViTImageClassifier(backbone, size.num_classes), job, xla)
