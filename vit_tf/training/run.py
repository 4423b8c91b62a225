"""From a recipe to a finished run: what the training scripts share."""

from contextlib import nullcontext

import keras
import numpy as np

from vit_tf import augment, classifier, files, plots
from vit_tf.data import Batches, CachedPictures, Fit, Pictures
from vit_tf.data.mixing import Mix
from vit_tf.data.randaugment import RandAugment
from vit_tf.data.transforms import Compose, HorizontalFlip, RandomErasing, RandomResizedCrop
from vit_tf.models import build_vit
from vit_tf.training.freezing import freeze
from vit_tf.training.interrupts import Interrupted
from vit_tf.training.lora import add_lora, merge_lora
from vit_tf.training.metrics import confident_mistakes, evaluate, predict, softmax
from vit_tf.training.optimizers import make_optimizer
from vit_tf.training.schedules import make_schedule
from vit_tf.training.trainer import Schedule, Trainer


def configure(recipe):
    """Sets what a recipe says of the whole process: seeds, precision, determinism."""
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.mixed_precision else "float32")
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def make_trainer(network, recipe, train, validation, image_size, folder, callbacks=()):
    """Returns the `Trainer` of a network by a recipe, at the start of its run.

    Args:
        network: a model of `build_vit` over images in [0, 255]; it is frozen, or gets LoRA, here.
        recipe: a `Recipe`.
        train, validation: `vit_tf.data.Batches`.
        image_size: (height, width) in pixels of the images in them.
        folder: the run's folder.
        callbacks: see `Trainer`.
    """
    if recipe.lora_rank:
        add_lora(network, recipe.lora_rank, recipe.lora_alpha, on=recipe.lora_on.split(","))
    else:
        freeze(network, recipe.freeze)
    model = training_model(network, image_size, graph_augmentation(recipe, image_size))
    model.compile(
        optimizer=make_optimizer(
            model,
            recipe.optimizer,
            recipe.learning_rate,
            recipe.weight_decay,
            recipe.layer_decay,
            recipe.momentum,
            recipe.clip_norm,
            recipe.accumulate,
            recipe.ema,
        ),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
    )
    return Trainer(
        model,
        network,
        train,
        validation,
        Schedule(
            recipe.learning_rate,
            make_schedule(
                recipe.schedule, recipe.warmup, recipe.step_decay if recipe.schedule == "step" else None
            ),
            recipe.epochs,
            recipe.minutes and 60 * recipe.minutes,
        ),
        folder,
        label_smoothing=recipe.label_smoothing,
        class_weights=balanced_weights(train) if recipe.class_weights == "balanced" else None,
        patience=recipe.patience,
        checkpoint_minutes=recipe.checkpoint_minutes,
        callbacks=callbacks,
    )


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


def graph_augmentation(recipe, image_size):
    """Returns the augmentation that runs as layers in the training step: that of small images."""
    if recipe.crop not in ("shift", "affine"):
        return []  # that of single pictures, see `picture_augmentation`
    if recipe.crop == "shift":
        moved = augment.RandomCrop(padding=max(1, min(image_size) // 16))
    else:
        moved = augment.RandomAffine(rotation=0.02, zoom=0.2)
    return [augment.RandomFlip(), moved] if recipe.flip else [moved]


def balanced_weights(batches):
    """Returns how much an image of each class counts, float32 (k,), so that all classes weigh the same.

    The mean over the images is one. King and Zeng, "Logistic Regression in Rare Events Data" (2001).
    """
    counts = np.bincount(batches.labels, minlength=batches.num_classes)
    return (len(batches.labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype("float32")


def make_network(variant, hyperparameters, recipe, preprocessing=None, weights=None):
    """Returns a model of `build_vit` over images in [0, 255], with the recipe's rates of dropping.

    Args:
        variant: name of a variant.
        hyperparameters: dict, overrides of it.
        recipe: a `Recipe`.
        preprocessing: the `Preprocessing` whose mean and deviation normalise; None for the variant's.
        weights: see `build_vit`; None for random ones.
    """
    rates = {name: getattr(recipe, name) for name in ("drop_path_rate", "dropout_rate")}
    rates = {name: rate for name, rate in rates.items() if rate}
    with rematerialized_blocks() if recipe.remat else nullcontext():
        return build_vit(
            variant,
            weights=weights,
            include_preprocessing=preprocessing or True,
            **{**hyperparameters, **rates},
        )


def rematerialized_blocks(most=1000):
    """A scope in which encoder blocks are built that keep no activations for the backward pass."""
    return keras.RematScope(mode="list_of_layers", layer_names=[f"block_{i}" for i in range(most)])


def make_batches(images, part, recipe, preprocessing):
    """Returns the `vit_tf.data.Batches` of a part of one's own images; None where it is empty.

    Args:
        images: `vit_tf.data.ImageFiles` whose splits are set.
        part: "train", which is shuffled and augmented, "validation" or "test".
        recipe: a `Recipe`.
        preprocessing: the `Preprocessing` whose resizing and cropping make the evaluation's view.
    """
    members = [i for i, split in enumerate(images.splits) if split == part]
    if not members:
        return None
    chosen, view = images.subset(members), Fit(preprocessing)
    pictures = Pictures(chosen)
    if recipe.cache:
        pictures = CachedPictures(pictures, 2 * max(preprocessing.image_size))
    is_train = part == "train"
    augmentation = picture_augmentation(recipe, preprocessing.image_size, view)
    return Batches(
        pictures,
        chosen.labels,
        len(chosen.class_names),
        recipe.batch_size,
        transform=augmentation if is_train else view,
        mix=make_mix(recipe) if is_train else None,
        shuffle=is_train,
        seed=recipe.seed,
    )


def picture_augmentation(recipe, image_size, view=None):
    """Returns what happens to each picture before it comes into a training batch, None for nothing.

    Args:
        recipe: a `Recipe`.
        image_size: (height, width) in pixels of the batches.
        view: the transform of the evaluation, which brings a picture to that size; None where it has it.
    """
    in_graph = recipe.crop in ("shift", "affine")
    if recipe.crop == "resized":
        steps = [RandomResizedCrop(image_size, scale=(recipe.crop_scale, 1.0))]
    else:
        steps = [view] if view else []
    if recipe.flip and not in_graph:
        steps.append(HorizontalFlip())
    if recipe.randaugment:
        steps.append(RandAugment(magnitude=recipe.randaugment))
    if recipe.random_erasing:
        steps.append(RandomErasing(recipe.random_erasing))
    return Compose(steps) if steps else None


def make_mix(recipe):
    """Returns MixUp and CutMix of a batch, None where the recipe has neither."""
    return Mix(recipe.mixup, recipe.cutmix) if recipe.mixup or recipe.cutmix else None


def run(trainer, folder):
    """Takes up the run's newest state, if there is one, and trains to the end; False if interrupted."""
    if trainer.resume():
        progress = trainer.progress
        done = "it was at its end" if progress.finished else f"going on in epoch {progress.epoch + 1}"
        print(f"resumed at step {progress.step}: {done}")
    try:
        trainer.run()
    except Interrupted:
        print(f"interrupted at step {trainer.progress.step}; go on with --resume {folder}")
        return False
    return True


# ---------------------------------------------------------------------------------------------------
# The end of a run
# ---------------------------------------------------------------------------------------------------
def write_report(trainer, recipe, test, class_names, folder, title, details=None):
    """Tests the best weights, and writes what the run has come to.

    Args:
        trainer: a `Trainer` whose run is finished.
        recipe: its `Recipe`.
        test: `vit_tf.data.Batches` that does not shuffle.
        class_names: k names.
        folder: the run's folder. `metrics.json`, `per_class.csv` and the pictures are written there.
        title: heading of the pictures.
        details: dict or None, goes into metrics.json, too.

    Returns:
        The metrics: those of `evaluate`, and what is known of the run.
    """
    trainer.load_best()
    logits, targets = predict(trainer.model, test, recipe.mirror)
    labels, progress = targets.argmax(-1), trainer.progress
    metrics = {
        **(details or {}),
        **evaluate(logits, labels, class_names),
        "test_images": len(labels),
        "best_epoch": progress.best["epoch"],
        "validation_accuracy": progress.best["val_accuracy"],
        "seconds": progress.rows[-1]["seconds"],
        "images_per_second": round(progress.images / progress.train_seconds, 1),
        "epochs": round(progress.step / len(trainer.train), 2),
    }
    files.write_json(folder / "metrics.json", metrics)
    matrix = np.array(metrics["confusion"])
    draw = {
        "curves.png": plots.curves(progress.rows, title),
        "confusion.png": plots.confusion(matrix, class_names, f"{title}: test images"),
    }
    wrong = confident_mistakes(logits, labels)
    shown = {"predictions.png": (np.arange(min(24, len(labels))), "first test images")}
    if len(wrong):
        shown["mistakes.png"] = (wrong, "most confident mistakes")
    for name, (indices, subject) in shown.items():
        images = np.stack([evaluated_picture(test, i) for i in indices])
        draw[name] = plots.predictions(
            images, labels[indices], softmax(logits[indices]), class_names, f"{title}: {subject}"
        )
    for name, figure in draw.items():
        plots.save(figure, folder / name)
    return metrics


def evaluated_picture(batches, index):
    """Returns an image (h, w, c) of `Batches` as the model sees it in the evaluation."""
    image = batches.images[int(index)]
    return np.asarray(batches.transform(image, None) if batches.transform else image)


def save_model(network, recipe, folder, variant, hyperparameters, preprocessing, class_names):
    """Writes the network as a folder that `vit_tf.load` reads; LoRA is merged into it."""
    if recipe.lora_rank:
        merge_lora(network)
    classifier.save(folder, network, variant, hyperparameters, preprocessing, class_names)
