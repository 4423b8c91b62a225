"""The input pipeline on JPEG files, compared with the training that it feeds.

    python benchmarks/pipeline.py                    # one to three minutes on two cores

The script writes JPEG files of 500 x 375 pixels to a temporary folder: smooth noise, which takes as long to
decode as photographs of that quality. The pipelines run alone and take turns, one epoch each per round.
Training steps on one batch take turns with steps that wait for the heaviest pipeline, which runs on the same
cores. The table has the median images per second.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import vit_tf
from vit_tf.commands import parser as cli
from vit_tf.cores import num_cores
from vit_tf.data.augment.image import Compose, EvalTransform, HorizontalFlip, RandomErasing, RandomResizedCrop
from vit_tf.data.augment.mixing import MixUpCutMix
from vit_tf.data.augment.randaugment import RandAugment
from vit_tf.data.decoded_images import CachedImages, DecodedImages
from vit_tf.data.loader import DataLoader
from vit_tf.preprocessing import get_preprocessing

VARIANT, IMAGE_SIZE, CACHED_SIDE = "vit_small_patch16_224", 224, 256
HEIGHT, WIDTH, QUALITY = 375, 500, 90
NUM_CLASSES, WARM_UP = 10, 1


class Files:
    """The files of a folder, with the interface that `DecodedImages` reads."""

    def __init__(self, folder):
        self.paths = sorted(Path(folder).iterdir())
        self.names = [path.name for path in self.paths]

    def __len__(self):
        return len(self.paths)

    def read(self, index):
        return self.paths[index].read_bytes()


def write_files(folder, count):
    """Writes noise of several scales: strong coarse noise and weak fine noise, as in photographs."""
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = np.full((HEIGHT, WIDTH, 3), 128.0)
        for scale in (64, 16, 4, 1):
            noise = rng.integers(0, 256, (HEIGHT // scale + 2, WIDTH // scale + 2, 3), "uint8")
            enlarged = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            pixels += (np.asarray(enlarged, "float32") - 128) * 0.1 * scale**0.5
        image = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
        image.save(Path(folder) / f"{index:04}.jpg", quality=QUALITY)


def cases(files, batch_size, num_threads):
    """Yields (name, DataLoader), from the lightest to the heaviest."""
    crop = [RandomResizedCrop(IMAGE_SIZE), HorizontalFlip()]
    heavy = Compose([*crop, RandAugment(), RandomErasing(0.25)])
    decoded, cached = DecodedImages(files), CachedImages(DecodedImages(files), CACHED_SIDE)
    for name, images, transform, mix in (
        ("evaluation transform", decoded, EvalTransform(get_preprocessing(VARIANT)), None),
        ("random resized crop and flip", decoded, Compose(crop), None),
        ("with RandAugment, erasing, mixing", decoded, heavy, MixUpCutMix()),
        (f"the same, cached at {CACHED_SIDE} pixels", cached, heavy, MixUpCutMix()),
    ):
        labels = np.arange(len(files)) % NUM_CLASSES
        yield (
            name,
            DataLoader(
                images, labels, NUM_CLASSES, batch_size, transform, mix, shuffle=True, num_threads=num_threads
            ),
        )


def pipeline_rate(batches, epoch):
    """Returns the images per second of a whole epoch."""
    start = time.perf_counter()
    count = sum(len(images) for images, _ in batches.epoch(epoch))
    return count / (time.perf_counter() - start)


def training_rate(model, iterator):
    """Returns the images per second of a training step, including the wait for its batch."""
    start = time.perf_counter()
    images, labels = next(iterator)
    model.train_on_batch(images, labels)
    return len(images) / (time.perf_counter() - start)


def measured(contestants, rounds, rate):
    """Returns {name: median} of `rate(contestant, round)`, taking turns, after rounds that fill caches."""
    rates = {name: [] for name in contestants}
    for turn in range(WARM_UP + rounds):
        for name, contestant in contestants.items():
            rates[name].append(rate(contestant, turn))
    return {name: statistics.median(values[WARM_UP:]) for name, values in rates.items()}


def endless(batches):
    """Yields the batches of one epoch after the other."""
    for epoch in itertools.count():
        yield from batches.epoch(epoch)


def compiled_model():
    model = vit_tf.build_vit(VARIANT, num_classes=NUM_CLASSES)
    model.compile(keras.optimizers.AdamW(1e-4), keras.losses.CategoricalCrossentropy(from_logits=True))
    return model


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown CPU"


def main():
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, help="threads of the pipeline; by default one more than cores")
    args = parser.parse_args()
    cli.check_counts(args, "files", "batch_size", "rounds", "steps", "threads")
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder, args.files)
        size = statistics.mean(path.stat().st_size for path in Path(folder).iterdir())
        pipelines = dict(cases(Files(folder), args.batch_size, args.threads))
        rates = measured(pipelines, args.rounds, pipeline_rate)
        heaviest = pipelines["with RandAugment, erasing, mixing"]
        model = compiled_model()
        feeds = {"fixed": itertools.repeat(next(heaviest.epoch())), "fed": endless(heaviest)}
        steps = measured(feeds, args.steps, lambda feed, _: training_rate(model, feed))
        feeds["fed"].close()
        training, fed = steps["fixed"], steps["fed"]
    print(
        f"{args.files} JPEG files of {WIDTH} x {HEIGHT}, {size / 1e3:.0f} kB each; {VARIANT}, batch "
        f"{args.batch_size}, AdamW, float32; {num_cores()} cores, {cpu_name()}, TensorFlow {tf.__version__}\n"
    )
    print("| | images/s | of training |\n|---|---:|---:|")
    print(f"| training alone, on one batch | {training:.1f} | 1.0 |")
    print(f"| training fed by crop, flip, RandAugment, erasing, mix | {fed:.1f} | {fed / training:.2f} |")
    for name, rate in rates.items():
        print(f"| pipeline alone: {name} | {rate:.0f} | {rate / training:.1f} |")


if __name__ == "__main__":
    cli.run(main)
