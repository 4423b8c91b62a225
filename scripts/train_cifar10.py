"""Trains a small Vision Transformer on CIFAR-10, from scratch.

    python scripts/train_cifar10.py                          # about 20 minutes, on any machine
    python scripts/train_cifar10.py --data cifar10.npz       # from a file; see README for the formats
    python scripts/train_cifar10.py --preset tutorial        # the Keras tutorial's model and recipe
    python scripts/train_cifar10.py --minutes 60 --out runs/long

The README has the accuracies to expect. Everything that a run makes is in its folder, runs/...
"""

import argparse
import importlib.util
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow looks for GPUs aloud

import keras
import numpy as np

from vit_tf import augment, build_vit, cli, data, files, plots, training

# ---------------------------------------------------------------------------------------------
# Config
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """One run. The fields with an option of the same name can be set on the command line."""

    variant: str = "vit_cifar10"
    epochs: int | None = 40  # the run ends with its epochs or its minutes, whichever comes first
    minutes: float | None = 20.0
    batch_size: int = 64
    learning_rate: float = 1.5e-3  # the peak
    schedule: str = "cosine"  # or "constant"
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    augmentation: str = "crop"  # "crop": flip and crop; "affine": flip, rotation and zoom
    validation_fraction: float = 0.1
    mixed_precision: bool = False
    seed: int = 0


PRESETS = {
    "default": Config(),
    # https://keras.io/examples/vision/image_classification_with_vision_transformer/
    "tutorial": Config(
        variant="vit_cifar10_tutorial",
        epochs=10,
        minutes=None,
        batch_size=256,
        learning_rate=1e-3,
        schedule="constant",
        weight_decay=1e-4,
        label_smoothing=0.0,
        augmentation="affine",
    ),
}

AUGMENTATIONS = {
    "crop": lambda: [augment.RandomFlip(), augment.RandomCrop(padding=2)],
    "affine": lambda: [augment.RandomFlip(), augment.RandomAffine(rotation=0.02, zoom=0.2)],
}


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        help="an .npz, the original CIFAR-10 folder or archive, 'cifar10' (download) or 'sample'; "
        "by default the download, and the sample where that cannot be reached",
    )
    parser.add_argument("--preset", choices=PRESETS, default="default")
    parser.add_argument("--variant", help="any name that vit_tf.list_models() knows")
    parser.add_argument("--epochs", type=int, help="alone: no time limit")
    parser.add_argument("--minutes", type=float, help="alone: no limit of epochs")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--mixed-precision", action="store_true", default=None, help="bfloat16")
    parser.add_argument("--out", help="the run's folder, by default runs/VARIANT-TIME")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard logs, too")
    return parser.parse_args(arguments)


def make_config(args):
    """Returns the preset with the options that were given; a ValueError names a wrong one."""
    preset = PRESETS[args.preset]
    given = {k: v for k, v in vars(args).items() if k in asdict(preset) and v is not None}
    if "minutes" in given or "epochs" in given:
        preset = replace(preset, epochs=None, minutes=None)
    for name in ("epochs", "minutes", "batch_size"):
        if name in given and not given[name] > 0:
            raise ValueError(f"--{name.replace('_', '-')} must be positive, got {given[name]}")
    if given.get("seed", 0) < 0:
        raise ValueError(f"--seed must be 0 or more, got {given['seed']}")
    if args.tensorboard and not is_installed("tensorboard"):
        raise ValueError("--tensorboard needs the package of that name: pip install tensorboard")
    return replace(preset, **given)


def is_installed(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # blocked
        return False


def make_run_folder(out, config, data_name):
    """Makes and returns the run's folder; one that holds a run already is left alone."""
    suffix = "-sample" if data_name == "sample" else ""
    default = f"runs/{config.variant}-{time.strftime('%Y%m%d-%H%M%S')}{suffix}"
    folder = Path(out or default)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: choose another folder with --out, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main(arguments=None):
    args = parse_arguments(arguments)
    config = make_config(args)
    keras.utils.set_random_seed(config.seed)
    if config.mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")

    # -----------------------------------------------------------------------------------------
    # Data
    # -----------------------------------------------------------------------------------------
    images = data.load_cifar10(args.data)
    if images.name == "sample":
        print(f"\n*** SAMPLE: {images.note or data.SAMPLE_NOTE} ***\n")
    train, val = data.stratified_split(images.y_train, config.validation_fraction, config.seed)
    num_classes = len(images.class_names)
    x_train, y_train = images.x_train[train], one_hot(images.y_train[train], num_classes)
    x_val, y_val = images.x_train[val], one_hot(images.y_train[val], num_classes)
    image_size, channels = x_train.shape[1:3], x_train.shape[3]

    # -----------------------------------------------------------------------------------------
    # Model
    # -----------------------------------------------------------------------------------------
    vit = build_vit(
        config.variant,
        num_classes=num_classes,
        in_channels=channels,
        include_preprocessing=True,
    )
    model = training.training_model(vit, image_size, AUGMENTATIONS[config.augmentation]())

    # -----------------------------------------------------------------------------------------
    # Optimizer
    # -----------------------------------------------------------------------------------------
    model.compile(
        optimizer=training.adamw(model, config.learning_rate, config.weight_decay),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=["accuracy"],
    )
    steps_per_epoch = -(-len(x_train) // config.batch_size)
    schedule = training.Schedule(
        config.learning_rate,
        training.warmup_cosine if config.schedule == "cosine" else lambda progress: 1.0,
        total_steps=config.epochs and config.epochs * steps_per_epoch,
        seconds=config.minutes and config.minutes * 60,
    )

    # -----------------------------------------------------------------------------------------
    # Callbacks
    # -----------------------------------------------------------------------------------------
    folder = make_run_folder(args.out, config, images.name)
    run = {**asdict(config), "data": images.name, "parameters": vit.count_params()}
    files.write_json(folder / "config.json", run)
    history = training.History(folder / "history.csv", len(x_train), config.batch_size)
    best = training.BestWeights(folder / "best.weights.h5", target=vit)
    bar = training.ProgressBar(schedule, history)
    callbacks = [schedule, history, best, training.LastState(folder / "last.keras"), bar]
    if args.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard"))

    # -----------------------------------------------------------------------------------------
    # Fit
    # -----------------------------------------------------------------------------------------
    print(
        f"{config.variant}: {vit.count_params():,} parameters, {len(x_train):,} training images "
        f"({images.name}), run folder {folder}"
    )
    try:
        model.fit(
            x_train,
            y_train,
            batch_size=config.batch_size,
            epochs=config.epochs or 1_000_000,  # the schedule ends a run that has minutes alone
            validation_data=(x_val, y_val),
            validation_batch_size=500,
            callbacks=callbacks,
            verbose=0,
        )
    except KeyboardInterrupt:
        bar.close()
        complete = f"the last complete epoch, {len(history.rows)}, is in {folder / 'last.keras'}"
        print(f"interrupted: {complete if history.rows else 'no epoch was complete'}")
        return 130

    # -----------------------------------------------------------------------------------------
    # Evaluate: the weights that were best on the validation images, once, on the test images
    # -----------------------------------------------------------------------------------------
    vit.load_weights(folder / "best.weights.h5")
    logits = model.predict(images.x_test, batch_size=500, verbose=0)
    metrics = {
        "data": images.name,
        **training.evaluate(logits, images.y_test, images.class_names),
        "best_epoch": best.best_epoch,
        "validation_accuracy": best.best,
        "seconds": history.rows[-1]["seconds"],
        "images_per_second": history.train_images / history.train_seconds,
        "epochs": round(history.train_images / len(x_train), 2),
    }
    files.write_json(folder / "metrics.json", metrics)

    # -----------------------------------------------------------------------------------------
    # Report
    # -----------------------------------------------------------------------------------------
    mark = " (sample)" if images.name == "sample" else ""
    title = f"{config.variant} on {images.name}"
    probabilities = np.asarray(keras.ops.softmax(logits))
    pictures = {
        "curves.png": plots.curves(history.rows, title),
        "confusion.png": plots.confusion(
            np.array(metrics["confusion"]), images.class_names, f"{title}: test images"
        ),
        "predictions.png": plots.predictions(
            images.x_test[:24], images.y_test[:24], probabilities[:24], images.class_names, title
        ),
    }
    for name, figure in pictures.items():
        plots.save(figure, folder / name)
    print(
        f"test accuracy{mark} {metrics['accuracy']:.2%}, top-5 {metrics['top5_accuracy']:.2%} "
        f"(weights of epoch {best.best_epoch}), {training.clock(metrics['seconds'])} minutes, "
        f"{metrics['images_per_second']:.0f} images/s; everything is in {folder}"
    )


def one_hot(labels, num_classes):
    """Returns labels (n,) as float32 rows (n, num_classes), which label smoothing needs."""
    return np.eye(num_classes, dtype="float32")[labels]


if __name__ == "__main__":
    cli.run(main)
