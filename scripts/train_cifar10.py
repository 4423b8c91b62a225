"""Trains a small Vision Transformer on CIFAR-10, from scratch.

    python scripts/train_cifar10.py                          # 10 minutes, on any machine
    python scripts/train_cifar10.py --data cifar10.npz       # from a file; see README for the formats
    python scripts/train_cifar10.py --preset tutorial        # the Keras tutorial's model and recipe
    python scripts/train_cifar10.py --preset long --out runs/long   # an hour; --minutes for another time
    python scripts/train_cifar10.py --resume runs/long       # after Ctrl-C, a crash or a power cut

The README has the accuracies to expect. Everything that a run makes is in its folder, runs/...
"""

import argparse
import importlib.util
import json
import os
from dataclasses import asdict, replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow looks for GPUs aloud

import keras

from vit_tf import data, files, training
from vit_tf.commands import main as cli
from vit_tf.preprocessing import get_preprocessing
from vit_tf.terminal import printable
from vit_tf.training import Recipe
from vit_tf.variants import get_variant

# ---------------------------------------------------------------------------------------------------
# Config
# ---------------------------------------------------------------------------------------------------
DEFAULT = Recipe(
    epochs=100,  # the run ends with its epochs or its minutes, whichever comes first
    minutes=10.0,
    optimizer="muon",
    batch_size=128,
    learning_rate=3e-3,
    label_smoothing=0.1,
    crop="pad",
    progressive_resizing="0.5,0.625,0.75,1",
    mixed_precision=training.fast_bfloat16(),
)
PRESETS = {
    "default": ("vit_cifar10", DEFAULT),
    # In more epochs the training images would be learned by heart: they have to differ more.
    "long": ("vit_cifar10", replace(DEFAULT, minutes=60.0, randaugment=5.0, random_erasing=0.25)),
    # https://keras.io/examples/vision/image_classification_with_vision_transformer/
    "tutorial": (
        "vit_cifar10_tutorial",
        replace(
            DEFAULT,
            epochs=10,
            minutes=None,
            optimizer="adamw",
            batch_size=256,
            learning_rate=1e-3,
            schedule="constant",
            warmup=0.0,
            weight_decay=1e-4,
            label_smoothing=0.0,
            crop="affine",
            progressive_resizing="none",
            mixed_precision=False,
        ),
    ),
}
VALIDATION_FRACTION = 0.1


def parse_arguments(arguments):
    parser = cli.Parser(
        usage="train_cifar10.py [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        help="an .npz, the original CIFAR-10 folder or archive, 'cifar10' (download) or 'sample'; "
        "by default the download, and the sample where that cannot be reached",
    )
    parser.add_argument("--preset", choices=PRESETS, help="what the settings start from (default)")
    parser.add_argument("--variant", help="any name that vit_tf.list_models() knows")
    parser.add_argument(
        "--set",
        nargs="+",
        metavar="NAME=VALUE",
        help="hyperparameters of the variant, as of build_vit, such as patch_stem=conv num_layers=6",
    )
    parser.add_argument("--out", help="the run's folder, by default runs/VARIANT-TIME; a run in it goes on")
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, as it began")
    parser.add_argument(
        "--tensorboard", action="store_true", default=None, help="write TensorBoard logs, too"
    )
    training.add_settings(parser)
    return parser.parse_args(arguments)


def make_command(args):
    """Returns all that decides what a run does, ready for JSON; a ValueError names a wrong option."""
    if args.tensorboard and not is_installed("tensorboard"):
        raise ValueError("--tensorboard needs the package of that name: pip install tensorboard")
    preset = args.preset or "default"
    command = {
        "script": "train_cifar10.py",
        "data": os.path.abspath(args.data) if os.path.exists(args.data or "") else args.data,
        "preset": preset,
        "variant": args.variant or PRESETS[preset][0],
        "hyperparameters": parse_hyperparameters(args.set or []),
        "tensorboard": bool(args.tensorboard),
        "settings": training.given_settings(args),
    }
    get_variant(command["variant"], **command["hyperparameters"])
    make_recipe(command)
    return command


def parse_hyperparameters(words):
    """Returns the values of "name=value", read as JSON where they are it; a ValueError shows a wrong one."""
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals and text):
            raise ValueError(f"--set takes NAME=VALUE, such as num_layers=6, got {word!r}")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def make_recipe(command):
    return training.override(PRESETS[command["preset"]][1], command["settings"])


def is_installed(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # blocked
        return False


def main(arguments=None):
    args = parse_arguments(arguments)
    command = None if args.resume else make_command(args)
    images, name = None, ""
    if not (args.resume or args.out):  # a folder's name tells the sample
        images = data.load_cifar10(command["data"])
        name = f"{command['variant']}{'-sample' if images.name == 'sample' else ''}"
    folder, command, saved = training.open_run(args, command, name, "train_cifar10.py")
    recipe = training.read_recipe(saved["recipe"]) if saved else make_recipe(command)
    training.configure(recipe)
    with training.locked(folder):
        images = images or data.load_cifar10(saved["source"] if saved else command["data"])
        return train(images, folder, command, recipe, saved)


def train(images, folder, command, recipe, saved):
    # -----------------------------------------------------------------------------------------------
    # Data
    # -----------------------------------------------------------------------------------------------
    if images.name == "sample":
        print(f"\n*** SAMPLE: {printable(images.note or data.SAMPLE_NOTE)} ***\n")
    train_indices, val_indices = data.stratified_split(images.y_train, VALIDATION_FRACTION, recipe.seed)
    num_classes, (height, width, channels) = len(images.class_names), images.x_train.shape[1:]
    variant = command["variant"]
    if channels != 3 and (recipe.crop == "resized" or recipe.randaugment):
        raise ValueError(
            f"--crop resized and --randaugment are for images of 3 channels, and these have {channels}: "
            "choose --crop shift or none, and --randaugment 0"
        )

    def batches(x, y, train=False):
        return data.DataLoader(
            x,
            y,
            num_classes,
            recipe.batch_size if train else 500,
            transform=training.image_augmentation(recipe, (height, width)) if train else None,
            mix=training.make_mix(recipe) if train else None,
            shuffle=train,
            seed=recipe.seed,
        )

    # -----------------------------------------------------------------------------------------------
    # Model
    # -----------------------------------------------------------------------------------------------
    hyperparameters = {"num_classes": num_classes, "in_channels": channels, **command["hyperparameters"]}
    network = training.make_network(variant, hyperparameters, recipe)
    if saved is None:
        training.adapt_stem(network, images.x_train[train_indices[:2000]])

    # -----------------------------------------------------------------------------------------------
    # Training
    # -----------------------------------------------------------------------------------------------
    callbacks = [keras.callbacks.TensorBoard(folder / "tensorboard")] if command["tensorboard"] else []
    trainer = training.make_trainer(
        network,
        recipe,
        batches(images.x_train[train_indices], images.y_train[train_indices], train=True),
        batches(images.x_train[val_indices], images.y_train[val_indices]),
        (height, width),
        folder,
        callbacks,
    )
    ending = training.Ending(
        recipe,
        batches(images.x_test, images.y_test),
        images.class_names,
        variant,
        hyperparameters,
        get_preprocessing(variant, image_size=network.input_shape[1:3]) if channels == 3 else None,
        title=f"{variant} on {printable(images.name)}",
        details={"data": images.name},
    )
    if saved is None:
        training.rehearse(ending, trainer)
        config = {
            "command": command,
            "recipe": asdict(recipe),
            "data": images.name,
            "source": command["data"] or images.name,  # where the same images will be found again
            "parameters": network.count_params(),
            "versions": training.versions(),
        }
        files.write_json(folder / "config.json", config)
    print(
        f"{variant}: {network.count_params():,} parameters, {len(train_indices):,} training images "
        f"({printable(images.name)}), run folder {printable(folder)}"
    )
    if not training.run_training(trainer, folder):
        return 130

    # -----------------------------------------------------------------------------------------------
    # Report: the weights that were best in validation, once, on the test images
    # -----------------------------------------------------------------------------------------------
    metrics = ending.write(trainer, folder)
    print(
        f"test accuracy{' (sample)' if images.name == 'sample' else ''} {metrics['accuracy']:.2%}, top-5 "
        f"{metrics['top5_accuracy']:.2%} (weights of epoch {metrics['best_epoch']}), "
        f"{training.format_duration(metrics['seconds'])} minutes, "
        f"{metrics['images_per_second']:.0f} images/s; "
        f"everything is in {printable(folder)}"
    )
    return 0


if __name__ == "__main__":
    cli.run(main)
