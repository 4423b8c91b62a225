"""From a recipe to a finished run: what the training scripts share."""

from contextlib import nullcontext

import keras
import numpy as np

from vit_tf.data.augment import batch as augment
from vit_tf.flops import require_memory
from vit_tf.models import build_vit
from vit_tf.structure import ViTStructure
from vit_tf.terminal import shell_quoted
from vit_tf.training.batches import batch_augmentation
from vit_tf.training.freezing import freeze
from vit_tf.training.loop.interrupts import Interrupted
from vit_tf.training.loop.trainer import Schedule, Trainer
from vit_tf.training.lora import add_lora
from vit_tf.training.memory_limit import memory_explained, require_step_memory
from vit_tf.training.optimizers import make_optimizer
from vit_tf.training.resolution import parse_resolutions, scaled_size, with_image_size
from vit_tf.training.schedules import make_schedule
from vit_tf.training.tasks import SINGLE_LABEL


def configure(recipe):
    """Sets what a recipe says of the whole process: seeds, precision, determinism."""
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.mixed_precision else "float32")
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def make_trainer(network, recipe, train, validation, image_size, folder, callbacks=(), task=SINGLE_LABEL):
    """Returns the `Trainer` of a network by a recipe, at the start of its run.

    Args:
        network: a model of `build_vit` over images in [0, 255]; it is frozen, or gets LoRA, here.
        recipe: a `Recipe`.
        train, validation: `vit_tf.data.DataLoader`.
        image_size: (height, width) in pixels of the images in them.
        folder: the run's folder.
        callbacks, task: see `Trainer`.
    """
    if recipe.epochs and recipe.accumulation_steps > recipe.epochs * len(train):
        raise ValueError(
            f"--accumulation-steps {recipe.accumulation_steps} never comes to a step, as the run has only "
            f"{recipe.epochs * len(train)} batches: accumulate fewer, or take smaller batches"
        )
    if recipe.lora_rank:
        add_lora(network, recipe.lora_rank, recipe.lora_alpha, on=recipe.lora_targets.split(","))
    else:
        freeze(network, recipe.freeze)
    require_step_memory(network, recipe)
    optimizer = recipe_optimizer(network, recipe)
    augmentation = batch_augmentation(recipe, image_size)

    balanced = recipe.class_weights == "balanced"
    class_weights, positive_weights = task.class_weights(train) if balanced else (None, None)

    def compiled(network):
        model = training_model(network, image_size, augmentation)
        loss = task.loss(recipe.label_smoothing, positive_weights)
        model.compile(optimizer=optimizer, loss=loss, metrics=[task.accuracy()])
        return model

    sizes = [scaled_size(network, share) for share in parse_resolutions(recipe.progressive_resizing)]
    models = {size: compiled(with_image_size(network, size)) for size in {*sizes, network.input_shape[1:3]}}
    return Trainer(
        models[network.input_shape[1:3]],
        network,
        train,
        validation,
        recipe_schedule(recipe),
        folder,
        stages=[models[size] for size in sizes],
        label_smoothing=recipe.label_smoothing,
        class_weights=class_weights,
        task=task,
        monitor=recipe.monitor,
        patience=recipe.patience,
        checkpoint_minutes=recipe.checkpoint_minutes,
        callbacks=callbacks,
    )


def recipe_optimizer(network, recipe):
    """Returns the optimizer that a recipe asks for."""
    return make_optimizer(
        network,
        recipe.optimizer,
        recipe.learning_rate,
        recipe.weight_decay,
        recipe.layer_decay,
        recipe.momentum,
        recipe.clip_norm,
        recipe.accumulation_steps,
        recipe.ema,
    )


def recipe_schedule(recipe):
    """Returns the `Schedule` that a recipe asks for."""
    decay = recipe.step_decay if recipe.schedule == "step" else None
    shape = make_schedule(recipe.schedule, recipe.warmup, decay)
    return Schedule(recipe.learning_rate, shape, recipe.epochs, recipe.minutes and 60 * recipe.minutes)


def training_model(network, image_size, augmentation=()):
    """Puts what happens to a picture in training before `network`; the weights are shared.

    Args:
        network: a `keras.Model` over images (b, h, w, c).
        image_size: (height, width) in pixels of the images that will come. They are resized where
            `network` takes another size.
        augmentation: layers that are active in training alone.

    Returns:
        A functional `keras.Model` over images `(b, *image_size, c)` with `network`'s outputs.
    """
    *network_size, channels = network.input_shape[1:]
    images = keras.Input((*image_size, channels), name="images")
    x = images
    if tuple(image_size) != tuple(network_size):
        x = augment.Resize(network_size, name="resize")(x)
    for layer in augmentation:
        x = layer(x)
    return keras.Model(images, network(x), name=f"{network.name}_training")


def make_network(variant, hyperparameters, recipe, preprocessing=None, weights=None):
    """Returns a model of `build_vit` over images in [0, 255], with the recipe's rates of dropping.

    Args:
        variant: name of a variant.
        hyperparameters: dict, overrides of it.
        recipe: a `Recipe`.
        preprocessing: the `Preprocessing` whose mean and deviation normalise; None for the variant's.
        weights: a `vit_tf.weights.TimmWeights`, or None for random ones. A missing head starts at zero.
    """
    flows = recipe.freeze == "none"  # LoRA's gradients do, too
    require_memory(variant, hyperparameters, recipe.batch_size, trains_blocks=flows)
    rates = {name: getattr(recipe, name) for name in ("drop_path_rate", "dropout_rate")}
    rates = {name: rate for name, rate in rates.items() if rate}
    with rematerialized_blocks() if recipe.remat else nullcontext():
        network = build_vit(
            variant,
            weights=weights,
            include_preprocessing=preprocessing or True,
            **{**hyperparameters, **rates},
        )
    if weights is not None and "head.weight" not in weights.tensors:
        zero_heads(network)
    return network


def zero_heads(network):
    """Sets the kernels and biases of the heads to zero, as for fine-tuning in the ViT paper, section 3.2."""
    for head in ViTStructure(network).heads:
        for variable in head.trainable_variables:
            variable.assign(np.zeros(variable.shape, "float32"))


def adapt_stem(network, images):
    """Computes the whitening of a network's stem from training images; nothing where the stem has none.

    Args:
        network: a model of `make_network`, at the start of its training.
        images: array (b, h, w, c) in [0, 255]; some thousands are enough.
    """
    structure = ViTStructure(network)
    stem = structure.stem
    if hasattr(stem, "adapt"):
        normalized = structure.normalization(images.astype("float32"))
        stem.adapt(keras.ops.convert_to_numpy(keras.ops.cast(normalized, "float32")))


def rematerialized_blocks(most=1000):
    """A scope in which encoder blocks are built that keep no activations for the backward pass."""
    return keras.RematScope(mode="list_of_layers", layer_names=[f"block_{i}" for i in range(most)])


def run_training(trainer, folder):
    """Takes up the run's newest state, if there is one, and trains to the end; False if interrupted."""
    if trainer.resume():
        progress = trainer.progress
        done = "it was at its end" if progress.finished else f"going on in epoch {progress.epoch + 1}"
        print(f"resumed at step {progress.step}: {done}")
    try:
        with memory_explained(trainer):
            trainer.run()
    except Interrupted:
        print(f"interrupted at step {trainer.progress.step}; go on with --resume {shell_quoted(folder)}")
        return False
    return True
