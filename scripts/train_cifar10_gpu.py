"""Trains a Vision Transformer on CIFAR-10 from scratch, on one GPU: each epoch is one compiled call of JAX.

    python scripts/train_cifar10_gpu.py --data cifar10.npz                  # 5 minutes, meant for an H200
    python scripts/train_cifar10_gpu.py --data cifar10.npz --preset long    # an hour
    python scripts/train_cifar10_gpu.py --data cifar10.npz --epochs 100 --out runs/gpu
    python scripts/train_cifar10_gpu.py --resume runs/gpu                   # after Ctrl-C or a crash

The whole data set, the model and the optimizer lie on the device; images are augmented there. A tenth of
the training images is held out and validates the averaged weights after each epoch; the test images are used
once, in the end. Everything that a run makes is in its folder, runs/..., as of train_cifar10.py.
"""

import argparse
import importlib.util
import os
import sys
from dataclasses import asdict

os.environ.setdefault("KERAS_BACKEND", "jax")
if os.environ["KERAS_BACKEND"] != "jax" or importlib.util.find_spec("jax") is None:
    is_missing = os.environ["KERAS_BACKEND"] == "jax"
    print(
        "error: this script needs "
        + ("JAX: pip install 'jax[cuda13]'" if is_missing else "KERAS_BACKEND=jax, or that variable unset"),
        file=sys.stderr,
    )
    sys.exit(2)

import jax

from vit_tf import data, files, training
from vit_tf.commands import main as cli
from vit_tf.preprocessing import get_preprocessing
from vit_tf.terminal import printable
from vit_tf.training import Recipe
from vit_tf.training.loop.device_trainer import ArrayBatches, check_recipe, make_device_trainer

# ---------------------------------------------------------------------------------------------------
# Config
# ---------------------------------------------------------------------------------------------------
VARIANT = "vit_cifar10"
SIZE = dict(
    patch_size=4,
    patch_stem="whitened",
    hidden_dim=384,
    num_layers=5,
    num_heads=6,
    mlp_dim=1536,
    activation="gelu_tanh",
    pooling="avg",
)
PRESETS = {
    # 9.7M parameters, 64 tokens. The minutes are a limit for slower machines, without the compilation.
    "fast": (
        SIZE,
        Recipe(
            epochs=300,
            minutes=4.0,
            optimizer="muon",
            learning_rate=2e-3,
            warmup=0.05,
            weight_decay=0.1,
            batch_size=512,
            ema=0.999,
            drop_path_rate=0.1,
            label_smoothing=0.1,
            crop="pad",
            randaugment=2.0,
            mixup=0.2,
            cutmix=1.0,
            mixed_precision=True,
            checkpoint_minutes=1.0,
        ),
    ),
    # 256 tokens, as CCT-7/3x1 has (https://arxiv.org/abs/2104.05704), and its heavier augmentation.
    "long": (
        {**SIZE, "patch_size": 2, "num_layers": 7},
        Recipe(
            epochs=600,
            minutes=60.0,
            optimizer="muon",
            learning_rate=2e-3,
            warmup=0.05,
            weight_decay=0.1,
            batch_size=512,
            ema=0.9995,
            drop_path_rate=0.2,
            label_smoothing=0.1,
            crop="pad",
            randaugment=5.0,
            random_erasing=0.25,
            mixup=0.8,
            cutmix=1.0,
            mixed_precision=True,
            checkpoint_minutes=2.0,
        ),
    ),
    # To try the script out, on any machine: seconds.
    "tiny": (
        {**SIZE, "hidden_dim": 32, "num_layers": 1, "num_heads": 2, "mlp_dim": 64},
        Recipe(epochs=2, learning_rate=2e-3, batch_size=64, ema=0.9, crop="pad", cutmix=1.0),
    ),
}
VALIDATION_FRACTION = 0.1


def parse_arguments(arguments):
    parser = cli.Parser(
        usage="train_cifar10_gpu.py [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        help="an .npz, the original CIFAR-10 folder or archive, 'cifar10' (download) or 'sample'; "
        "by default the download, and the sample where that cannot be reached",
    )
    parser.add_argument("--preset", choices=PRESETS, help="model and settings to start from (fast)")
    parser.add_argument("--out", help="the run's folder, by default runs/...; a run in it goes on")
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, as it began")
    training.add_settings(parser)
    return parser.parse_args(arguments)


def make_command(args):
    """Returns all that decides what a run does, ready for JSON; a ValueError names a wrong option."""
    command = {
        "script": "train_cifar10_gpu.py",
        "data": os.path.abspath(args.data) if os.path.exists(args.data or "") else args.data,
        "preset": args.preset or "fast",
        "settings": training.given_settings(args),
    }
    check_recipe(make_recipe(command))
    return command


def make_recipe(command):
    return training.override(PRESETS[command["preset"]][1], command["settings"])


def main(arguments=None):
    args = parse_arguments(arguments)
    command = None if args.resume else make_command(args)
    name = f"{VARIANT}-gpu-{command['preset']}" if command else ""
    folder, command, saved = training.open_run(args, command, name, "train_cifar10_gpu.py")
    recipe = training.read_recipe(saved["recipe"]) if saved else make_recipe(command)
    training.configure(recipe)
    with training.locked(folder):
        images = data.load_cifar10(saved["source"] if saved else command["data"])
        return train(images, folder, command, recipe, saved)


def train(images, folder, command, recipe, saved):
    # -----------------------------------------------------------------------------------------------
    # Data
    # -----------------------------------------------------------------------------------------------
    if images.name == "sample":
        print(f"\n*** SAMPLE: {printable(images.note or data.SAMPLE_NOTE)} ***\n")
    train_indices, val_indices = data.stratified_split(images.y_train, VALIDATION_FRACTION, recipe.seed)
    names, channels = images.class_names, images.x_train.shape[-1]

    def batches(x, y, batch_size=None):
        return ArrayBatches(x, y, len(names), batch_size or min(500, len(x)))

    training_images = images.x_train[train_indices]
    train_batches = batches(training_images, images.y_train[train_indices], recipe.batch_size)
    val_batches = batches(images.x_train[val_indices], images.y_train[val_indices])

    # -----------------------------------------------------------------------------------------------
    # Model
    # -----------------------------------------------------------------------------------------------
    hyperparameters = {
        **PRESETS[command["preset"]][0],
        "image_size": list(images.x_train.shape[1:3]),
        "num_classes": len(names),
        "in_channels": channels,
    }
    network = training.make_network(VARIANT, hyperparameters, recipe)
    if saved is None:
        training.adapt_stem(network, training_images[:2000])

    # -----------------------------------------------------------------------------------------------
    # Training
    # -----------------------------------------------------------------------------------------------
    trainer = make_device_trainer(network, recipe, train_batches, val_batches, folder)
    ending = training.Ending(
        recipe,
        batches(images.x_test, images.y_test),
        names,
        VARIANT,
        hyperparameters,
        get_preprocessing(VARIANT, image_size=network.input_shape[1:3]) if channels == 3 else None,
        title=f"{VARIANT} on {printable(images.name)}",
        details={
            "data": images.name,
            "device": device_name(),
            "parameters": network.count_params(),
        },
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
            "device": device_name(),
        }
        files.write_json(folder / "config.json", config)
    print(
        f"{network.count_params():,} parameters, {len(train_indices):,} training images "
        f"({printable(images.name)}) on {device_name()}, run folder {printable(folder)}; "
        "compiling comes first"
    )
    if not training.run_training(trainer, folder):
        return 130

    # -----------------------------------------------------------------------------------------------
    # Report: the averaged weights of the last epoch, once, on the test images
    # -----------------------------------------------------------------------------------------------
    metrics = ending.write(trainer, folder, compile_seconds=round(trainer.compile_seconds, 1))
    print(
        f"test accuracy{' (sample)' if images.name == 'sample' else ''} {metrics['accuracy']:.2%}, top-5 "
        f"{metrics['top5_accuracy']:.2%}, {training.format_duration(metrics['seconds'])} minutes and "
        f"{trainer.compile_seconds:.0f} s of compiling, {metrics['images_per_second']:.0f} images/s; "
        f"everything is in {printable(folder)}"
    )
    return 0


def device_name():
    return jax.devices()[0].device_kind


if __name__ == "__main__":
    cli.run(main)
