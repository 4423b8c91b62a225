"""Training: recipes and presets, the trainer, and what fine-tuning needs."""

from typing import TYPE_CHECKING

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.training.batches import make_batches
    from vit_tf.training.distribution.layout import layout_map
    from vit_tf.training.ending import Ending
    from vit_tf.training.freezing import freeze
    from vit_tf.training.loop.trainer import Trainer
    from vit_tf.training.lora import add_lora, merge_lora
    from vit_tf.training.metrics import evaluate, per_class, predict
    from vit_tf.training.optimizers import averaged_weights, make_optimizer
    from vit_tf.training.presets import PRESETS, RECIPES, get_recipe
    from vit_tf.training.recipes import Recipe
    from vit_tf.training.run import (
        adapt_stem,
        configure,
        make_model,
        make_trainer,
        make_training_model,
        run_training,
    )
    from vit_tf.training.schedules import Schedule, make_schedule, warmup_cosine
    from vit_tf.training.tasks import TASKS

__all__ = [
    "Ending",
    "PRESETS",
    "RECIPES",
    "Recipe",
    "Schedule",
    "TASKS",
    "Trainer",
    "adapt_stem",
    "add_lora",
    "averaged_weights",
    "configure",
    "evaluate",
    "freeze",
    "get_recipe",
    "layout_map",
    "make_batches",
    "make_model",
    "make_optimizer",
    "make_schedule",
    "make_trainer",
    "make_training_model",
    "merge_lora",
    "per_class",
    "predict",
    "run_training",
    "warmup_cosine",
]
__getattr__, __dir__ = lazy_exports(__name__)
