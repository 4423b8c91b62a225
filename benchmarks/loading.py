"""Loading published weights: time compared with reading the file, and peak memory. Reading of shards.

    python benchmarks/loading.py                                # ViT-L/16, three runs
    python benchmarks/loading.py --variant vit_base_patch16_224 --runs 5
    python benchmarks/loading.py --images 4000                  # images in a folder, a zip and shards

The script writes the variant's weights as a .safetensors file to a temporary folder. It then measures, each
in its own process, reading the file into memory, and loading the file into a built model. Both are measured
with the file dropped from the page cache before, and with the file left in the page cache.

With --images, the script writes as many JPEG files of 375 x 500 pixels, a zip of these and shards. It reads
the images in random order in as many threads as a `DataLoader` has, from the disk and from the page cache,
and then reads and decodes them. The cases take turns.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vit_tf.commands import parser as cli

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def drop_from_cache(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_memory():
    """Returns the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read(path, variant):
    """Returns the seconds to read the file into memory."""
    import numpy as np

    start = time.perf_counter()
    np.fromfile(path, "uint8")
    return {"seconds": time.perf_counter() - start}


def load(path, variant):
    """Returns the seconds to load the file into a built model, and the peak memory above the libraries'."""
    import keras

    import vit_tf

    vit_tf.build_vit("test_vit", image_size=32)  # TensorFlow's own memory
    keras.utils.clear_session()
    before = peak_memory()
    start = time.perf_counter()
    model = vit_tf.build_vit(variant)
    built = time.perf_counter()
    vit_tf.load_weights(model, path)
    end = time.perf_counter()
    return {"seconds": end - built, "build": built - start, "peak": peak_memory() - before}


def measure(task, path, variant, cold):
    if cold:
        drop_from_cache(path)
    command = [sys.executable, __file__, "--task", task, "--path", str(path), "--variant", variant]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def write(path, variant):
    """Writes the variant's weights. It runs in its own process, so that its memory is released."""
    import vit_tf

    vit_tf.save_weights(vit_tf.build_vit(variant), path)
    return {}


def write_images(folder, count):
    """Writes JPEG files of coarse noise in ten class folders."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (75, 100, 3), dtype=np.uint8))
        path = folder / f"class_{i % 10}" / f"{i:06}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=96)


def images_per_second(files, generator, decodes):
    """Returns how many images a second are read, and decoded if `decodes`, in random order by threads."""
    from concurrent.futures import ThreadPoolExecutor

    from vit_tf.cores import num_cores
    from vit_tf.data import DecodedImages

    order = generator.permutation(len(files)).tolist()
    images = DecodedImages(files)
    with ThreadPoolExecutor(num_cores() + 1) as pool:
        start = time.perf_counter()
        for _ in pool.map(images.__getitem__ if decodes else files.read, order, chunksize=16):
            pass
        return len(files) / (time.perf_counter() - start)


def print_images(folder, count, runs):
    """Prints the table of reading images from a folder, a zip and shards."""
    import shutil

    import numpy as np

    from vit_tf.data import find_images, write_shards

    sources = {"folder": folder / "images"}
    write_images(sources["folder"], count)
    size = sum(path.stat().st_size for path in sources["folder"].rglob("*.jpg"))
    sources["zip"] = Path(shutil.make_archive(folder / "images", "zip", sources["folder"]))
    for name, format in (("ArrayRecord", "arrayrecord"), ("WebDataset", "webdataset")):
        sources[name] = folder / format
        write_shards(sources["folder"], sources[name], format, shard_mb=64)
    files = {name: find_images(source) for name, source in sources.items()}
    rates, generator = {name: ([], [], []) for name in sources}, np.random.default_rng(0)
    for _ in range(runs):
        for name, source in sources.items():
            for path in [source] if source.is_file() else source.rglob("*.*"):
                if path.is_file():
                    drop_from_cache(path)
            for column, decodes in zip(rates[name], (False, False, True)):
                column.append(images_per_second(files[name], generator, decodes))
    print(f"{count:,} images of {size / count / 1e3:.0f} kB, medians of {runs} runs\n")
    print("| images/s | read from the disk | read from the page cache | read and decoded |")
    print("|---|---:|---:|---:|")
    for name, columns in rates.items():
        print(f"| {name} | {' | '.join(f'{statistics.median(column):,.0f}' for column in columns)} |")


def main():
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="vit_large_patch16_224")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--images", type=int, metavar="N", help="measure the reading of N images instead")
    parser.add_argument("--task", choices=("read", "load", "write"), help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    cli.check_counts(args, "runs", "images")
    if args.task:
        task = {"read": read, "load": load, "write": write}[args.task]
        print(json.dumps(task(args.path, args.variant)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.images:
            print_images(Path(folder), args.images, args.runs)
            return
        path = Path(folder) / "model.safetensors"
        measure("write", path, args.variant, cold=False)
        size = path.stat().st_size
        print(f"{args.variant}: a file of {size / 1e9:.2f} GB, medians of {args.runs} runs\n")
        print("| file | reading it, s | loading it, s | ratio | peak memory, GB | of file + model |")
        print("|---|---:|---:|---:|---:|---:|")
        for cold in (True, False):
            reads, loads = [], []
            for _ in range(args.runs):  # alternately, so that a slow minute affects both
                reads.append(measure("read", path, args.variant, cold)["seconds"])
                loads.append(measure("load", path, args.variant, cold))
            reading = statistics.median(reads)
            loading = statistics.median(run["seconds"] for run in loads)
            peak = max(run["peak"] for run in loads)
            print(
                f"| {'on disk' if cold else 'in the page cache'} | {reading:.2f} | {loading:.2f} "
                f"| {loading / reading:.2f} | {peak / 1e9:.2f} | {peak / (2 * size):.2f} |"
            )


if __name__ == "__main__":
    cli.run(main)
