"""Training: recipes, the loop with its checkpoints, and what fine-tuning needs."""

from vit_tf.commands.settings import add_settings, given_settings, override
from vit_tf.training.batches import image_augmentation, make_batches, make_mix
from vit_tf.training.ending import Ending, rehearse
from vit_tf.training.freezing import freeze
from vit_tf.training.loop.checkpoints import Checkpoints
from vit_tf.training.loop.progress import format_duration
from vit_tf.training.loop.trainer import Schedule, Trainer
from vit_tf.training.lora import add_lora, merge_lora
from vit_tf.training.metrics import evaluate, per_class, predict
from vit_tf.training.optimizers import averaged_weights, make_optimizer
from vit_tf.training.precision import fast_bfloat16
from vit_tf.training.recipes import RECIPES, Recipe, get_recipe, read_recipe
from vit_tf.training.run import (
    adapt_stem,
    configure,
    make_network,
    make_trainer,
    run_training,
    training_model,
)
from vit_tf.training.run_folder import locked, open_run, read_model, versions
from vit_tf.training.schedules import make_schedule, warmup_cosine
from vit_tf.training.tasks import TASKS, choose_task

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
    "format_duration",
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
    "image_augmentation",
    "predict",
    "run_training",
    "read_model",
    "read_recipe",
    "rehearse",
    "training_model",
    "versions",
    "warmup_cosine",
]
