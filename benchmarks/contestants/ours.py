"""This project's model, through `build_vit`."""

from dataclasses import asdict

from contestants.keras_models import built, set_precision
from vit_tf import build_vit
from vit_tf.training import make_optimizer


def build(job, xla=False, plain=False):
    set_precision(job)
    if job.variant and not plain:
        model = build_vit(job.variant, image_size=job.image_size)
    else:
        model = build_vit("vit_b16", image_size=job.image_size, **asdict(job.dimensions))
    return built(model, job, xla, make_optimizer(model, "adamw", 1e-4, 0.05))
