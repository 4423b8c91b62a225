"""zeromodels' ViT classifier."""

from zeromodels.models.vit import ViTImageClassify

from contestants.keras_models import built, set_precision


def build(job, xla=False):
    set_precision(job)
    size = job.dimensions
    model = ViTImageClassify(
        patch_size=size.patch_size,
        embed_dim=size.hidden_dim,
        depth=size.num_layers,
        num_heads=size.num_heads,
        mlp_ratio=size.mlp_dim / size.hidden_dim,
        image_size=job.image_size,
        num_classes=size.num_classes,
    )
    return built(model, job, xla)
