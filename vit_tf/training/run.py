"""From a recipe to a finished run."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from vit_tf.data import DataLoader
from vit_tf.data.augment import batch as augment
from vit_tf.flops import require_memory
from vit_tf.models import build_vit
from vit_tf.preprocessing.transform import Preprocessing
from vit_tf.structure import ViTStructure
from vit_tf.terminal import shell_quoted
from vit_tf.training.augmentation import batch_augmentation
from vit_tf.training.distribution.placement import JaxDevices, MirroredDevices, OneDevice
from vit_tf.training.freezing import freeze
from vit_tf.training.loop.engines import check_recipe
from vit_tf.training.loop.engines.train_batch import TrainBatchEngine
from vit_tf.training.loop.interrupts import Interrupted
from vit_tf.training.loop.trainer import Trainer
from vit_tf.training.lora import add_lora
from vit_tf.training.memory_limit import memory_explained, require_step_memory
from vit_tf.training.optimizers import make_optimizer
from vit_tf.training.recipes import Recipe, parse_resolutions
from vit_tf.training.resolution import scaled_size, with_image_size
from vit_tf.training.schedules import recipe_schedule
from vit_tf.training.tasks import SINGLE_LABEL, SingleLabel
from vit_tf.weights.load import TimmWeights


def configure(recipe: Recipe) -> Recipe:
    """Sets the process-wide state of a recipe: seeds, precision, determinism.

    Returns:
        The recipe, whose `mixed_precision` is decided: None means where this machine is fast in bfloat16.
    """
    if recipe.mixed_precision is None:
        recipe = replace(recipe, mixed_precision=fast_bfloat16())
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.mixed_precision else "float32")
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    return recipe


def fast_bfloat16():
    """Returns whether this machine probably trains faster in bfloat16 than in float32.

    It does on GPUs and TPUs, and with TensorFlow on processors that multiply bfloat16 (AVX-512 BF16, AMX).
    JAX and PyTorch take longer with bfloat16 on a CPU.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        devices = {device.device_type for device in tf.config.list_physical_devices()}
        return bool(devices & {"GPU", "TPU"} or processor_flags() & {"avx512_bf16", "amx_bf16"})
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    import torch

    return torch.cuda.is_available()


def processor_flags():
    """Returns the names of the processor's instruction sets; an empty set on systems without /proc."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return set(text.partition("flags")[2].partition("\n")[0].split())


def make_trainer(
    model: keras.Model,
    recipe: Recipe,
    train: DataLoader,
    validation: DataLoader,
    image_size: tuple[int, int],
    folder: Path,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    task: SingleLabel = SINGLE_LABEL,
    engine: str = "train-batch",
    placement: OneDevice | None = None,
) -> Trainer:
    """Returns the `Trainer` of a model by a recipe, at the start of its run.

    Args:
        model: a model of `build_vit` over images in [0, 255]; it is frozen, or gets LoRA, here.
        recipe: a `Recipe`.
        train, validation: `vit_tf.data.DataLoader`; of uint8 arrays for "compiled-epoch".
        image_size: (height, width) in pixels of the images in them.
        folder: `pathlib.Path`, the run's folder.
        callbacks, task: see `Trainer`.
        engine: "train-batch" or "compiled-epoch", see `vit_tf.training.loop.engines`.
        placement: where the run computes, in whose `scope()` the model was built; None for one device.

    Raises:
        ValueError: the engine does not support a setting, or the accumulation never comes to a step.
        OutOfMemory: a training step needs far more memory than the machine has.
    """
    check_recipe(engine, recipe)
    placement = placement or OneDevice()
    if recipe.epochs and recipe.accumulation_steps > recipe.epochs * len(train):
        raise ValueError(
            f"--accumulation-steps {recipe.accumulation_steps} never comes to a step, as the run has only "
            f"{recipe.epochs * len(train)} batches: accumulate fewer, or take smaller batches"
        )
    if recipe.lora_rank:
        add_lora(model, recipe.lora_rank, recipe.lora_alpha, on=recipe.lora_targets.split(","))
    else:
        freeze(model, recipe.freeze)
    require_step_memory(model, recipe)
    names = "learning_rate weight_decay layer_decay momentum clip_norm accumulation_steps ema".split()
    optimizer = make_optimizer(model, recipe.optimizer, **{name: getattr(recipe, name) for name in names})
    if engine == "compiled-epoch":
        from vit_tf.training.loop.engines.compiled_epoch import make_engine  # JAX

        built_engine = make_engine(model, recipe, optimizer, train, validation)
    else:
        data = train, validation, image_size, task
        built_engine = make_train_batch_engine(model, recipe, optimizer, *data, engine_of(placement, task))
    return Trainer(
        built_engine,
        recipe_schedule(recipe),
        folder,
        label_smoothing=recipe.label_smoothing,
        task=task,
        monitor=recipe.monitor,
        patience=recipe.patience,
        checkpoint_minutes=recipe.checkpoint_minutes,
        callbacks=callbacks,
        group=placement.group,
    )


def make_train_batch_engine(
    model, recipe, optimizer, train, validation, image_size, task, engine=TrainBatchEngine
):
    """Returns the `TrainBatchEngine` of a model by a recipe; arguments as of `make_trainer`.

    `engine` is `TrainBatchEngine` or another function of its arguments.
    """
    augmentation = batch_augmentation(recipe, image_size)
    balanced = recipe.class_weights == "balanced"
    class_weights, positive_weights = task.class_weights(train) if balanced else (None, None)

    def compiled(model):
        training_model = make_training_model(model, image_size, augmentation)
        loss = task.loss(recipe.label_smoothing, positive_weights)
        training_model.compile(optimizer=optimizer, loss=loss, metrics=[task.accuracy()])
        return training_model

    own_size = image_size if None in model.input_shape[1:3] else model.input_shape[1:3]
    fractions = parse_resolutions(recipe.progressive_resizing)
    sizes = [scaled_size(model, fraction, own_size) for fraction in fractions]
    models = {size: compiled(with_image_size(model, size)) for size in {*sizes, own_size}}
    return engine(
        models[own_size],
        model,
        train,
        validation,
        resolution_models=[models[size] for size in sizes],
        class_weights=class_weights,
    )


def engine_of(placement, task):
    """Returns a function of the arguments of `TrainBatchEngine` to the engine of a placement."""
    if isinstance(placement, JaxDevices):
        from vit_tf.training.loop.engines.sharded_batch import ShardedEngine  # JAX

        return partial(ShardedEngine, placement, task.image_accuracy)
    if isinstance(placement, MirroredDevices):
        from vit_tf.training.loop.engines.mirrored_batch import MirroredEngine  # TensorFlow

        return partial(MirroredEngine, task=task)
    return TrainBatchEngine


def make_training_model(
    model: keras.Model, image_size: tuple[int, int], augmentation: Sequence[keras.layers.Layer] = ()
) -> keras.Model:
    """Returns a model that resizes and augments images before `model`; the weights are shared.

    Args:
        model: a `keras.Model` over images (b, h, w, c).
        image_size: (height, width) in pixels of the training images. They are resized if `model` takes
            another size.
        augmentation: layers that act in training alone.

    Returns:
        A functional `keras.Model` over images `(b, *image_size, c)` with `model`'s outputs.
    """
    *model_size, channels = model.input_shape[1:]
    images = keras.Input((*image_size, channels), name="images")
    x = images
    if tuple(image_size) != tuple(model_size):
        x = augment.Resize(model_size, name="resize")(x)
    for layer in augmentation:
        x = layer(x)
    return keras.Model(images, model(x), name=f"{model.name}_training")


def make_model(
    variant: str,
    hyperparameters: dict[str, Any],
    recipe: Recipe,
    preprocessing: Preprocessing | None = None,
    weights: TimmWeights | None = None,
) -> keras.Model:
    """Returns a model of `build_vit` over images in [0, 255], with the recipe's dropout and DropPath rates.

    Args:
        variant: name of a variant.
        hyperparameters: dict, overrides of it.
        recipe: a `Recipe`.
        preprocessing: the `Preprocessing` with mean and standard deviation; None for the variant's.
        weights: a `vit_tf.weights.TimmWeights`, or None for random ones. A missing head starts at zero.
    """
    trains_blocks = recipe.freeze == "none"  # with LoRA gradients flow through the blocks, too
    require_memory(variant, hyperparameters, recipe.batch_size, trains_blocks=trains_blocks)
    rates = {name: getattr(recipe, name) for name in ("drop_path_rate", "dropout_rate")}
    rates = {name: rate for name, rate in rates.items() if rate}
    with rematerialized_blocks() if recipe.remat else nullcontext():
        model = build_vit(
            variant,
            weights=weights,
            include_preprocessing=preprocessing or True,
            **{**hyperparameters, **rates},
        )
    if weights is not None and "head.weight" not in weights.tensors:
        zero_heads(model)
    return model


def zero_heads(model):
    """Sets the kernels and biases of the heads to zero, as for fine-tuning in the ViT paper, section 3.2."""
    for head in ViTStructure(model).heads:
        for variable in head.trainable_variables:
            variable.assign(np.zeros(variable.shape, "float32"))


def adapt_stem(model: keras.Model, images: np.ndarray | Callable[[], np.ndarray]) -> None:
    """Computes the whitening of a model's stem from training images; other stems stay as they are.

    Args:
        model: a model of `make_model`, at the start of its training.
        images: array (b, h, w, c) in [0, 255], or a function that returns one; two thousand are enough.
    """
    structure = ViTStructure(model)
    stem = structure.stem
    if hasattr(stem, "adapt"):
        images = images() if callable(images) else images
        normalized = structure.normalization(images.astype("float32"))
        stem.adapt(keras.ops.convert_to_numpy(keras.ops.cast(normalized, "float32")))


def rematerialized_blocks(most=1000):
    """A scope in which blocks are built that recompute their activations in the backward pass."""
    return keras.RematScope(mode="list_of_layers", layer_names=[f"block_{i}" for i in range(most)])


def run_training(trainer: Trainer, folder: Path, stage: int = 1, resuming: str | None = None) -> bool:
    """Resumes the run from its newest state, if there is one, and trains to the end.

    Args:
        trainer: a `Trainer`.
        folder: the run's folder.
        stage: int, how many schedules the run has. A finished run with fewer starts the next one.
        resuming: how the user continues an interrupted run; None for `--resume FOLDER`.

    Returns:
        False if the run was interrupted, else True.
    """
    if trainer.resume():
        progress = trainer.progress
        if progress.finished and progress.stage < stage:
            trainer.begin_stage(stage)
        done = "the run has ended" if progress.finished else f"continuing in epoch {progress.epoch + 1}"
        print(f"resumed at step {progress.step}: {done}")
    try:
        with memory_explained(trainer):
            trainer.run()
    except Interrupted:
        resuming = resuming or f"with --resume {shell_quoted(folder)}"
        print(f"interrupted at step {trainer.progress.step}; continue {resuming}")
        return False
    return True
