"""Training: recipes, the loop with its checkpoints, and what fine-tuning needs."""

from vit_tf.training.batches import make_batches, make_mix, picture_augmentation
from vit_tf.training.checkpoints import Checkpoints
from vit_tf.training.ending import Ending, rehearse
from vit_tf.training.freezing import freeze
from vit_tf.training.lora import add_lora, merge_lora
from vit_tf.training.metrics import evaluate, per_class, predict
from vit_tf.training.optimizers import averaged_weights, make_optimizer
from vit_tf.training.options import add_settings, given_settings, override
from vit_tf.training.precision import fast_bfloat16
from vit_tf.training.progress import clock
from vit_tf.training.recipes import RECIPES, Recipe, get_recipe, read_recipe
from vit_tf.training.run import adapt_stem, configure, make_network, make_trainer, run, training_model
from vit_tf.training.run_folder import locked, open_run, read_model, versions
from vit_tf.training.schedules import make_schedule, warmup_cosine
from vit_tf.training.tasks import TASKS, choose_task
from vit_tf.training.trainer import Schedule, Trainer

__all__ = [
    "RECIPES",
    "Checkpoints",
    "Ending",
    "Recipe",
    "Schedule",
    "TASKS",
    "Trainer",
    "adapt_stem",
    "add_lora",
    "add_settings",
    "averaged_weights",
    "choose_task",
    "clock",
    "configure",
    "evaluate",
    "fast_bfloat16",
    "freeze",
    "get_recipe",
    "given_settings",
    "locked",
    "make_batches",
    "make_mix",
    "make_network",
    "make_optimizer",
    "make_schedule",
    "make_trainer",
    "merge_lora",
    "open_run",
    "override",
    "per_class",
    "picture_augmentation",
    "predict",
    "run",
    "read_model",
    "read_recipe",
    "rehearse",
    "training_model",
    "versions",
    "warmup_cosine",
]
