"""Scanning, checking and splitting a folder of ImageNet-1k's size: time and peak memory.

    python benchmarks/scan.py                               # 1,000 classes, 1.28 million files
    python benchmarks/scan.py --classes 100 --images 20000  # a quick try
    python benchmarks/scan.py --folder DIR                  # a folder of your own, such as ImageNet itself

The script makes a tree of class folders in a temporary folder. Its files are hard links of a few JPEGs, so
that the tree takes little space, and reading is from the page cache: the times are those of the processor.
Each row of the table is a process of its own, and its time is that without the imports.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vit_tf.commands import parser as cli

LINKS_PER_FILE = 60_000  # ext4 allows 65,000
ROWS = (
    ("find the images", "find", None),
    ("first start, `--check none`: find, split", "start", "none"),
    ("first start, `--check headers`: find, check, split", "start", "headers"),
    ("second start, `--check headers`", "start", "headers"),
    ("the split read again, as by `--resume`", "resume", None),
)


def make_tree(root, num_classes, num_images):
    """Makes folders of hard links of JPEGs of noise, 375 x 500 pixels."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    originals, count = [], 0
    for label in range(num_classes):
        folder = root / "train" / f"n{label:08}"
        folder.mkdir(parents=True)
        for i in range(label * num_images // num_classes, (label + 1) * num_images // num_classes):
            if count % LINKS_PER_FILE == 0:
                coarse = Image.fromarray(generator.integers(0, 256, (75, 100, 3), dtype=np.uint8))
                originals.append(root / f".original_{len(originals)}.jpg")
                coarse.resize((500, 375), Image.Resampling.BICUBIC).save(originals[-1], quality=96)
            os.link(originals[-1], folder / f"n{label:08}_{i}.JPEG")
            count += 1
    return sum(path.stat().st_size for path in originals) / len(originals)


def memory():
    """Returns the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def step(name, folder, split, level):
    """Does a step; returns its seconds, those of the processor, and the peak memory of this process."""
    from vit_tf.data import check_images, find_images, read_split, split_files, write_split

    busy, start, seconds = time.process_time(), time.perf_counter(), {}
    files = find_images(folder)
    seconds["find"] = time.perf_counter() - start
    if name == "resume":
        files = read_split(files, split, cached=True)
    if name == "start":
        files, _ = check_images(files, progress=False, level=level, cached=True)
        seconds["check"] = time.perf_counter() - start - seconds["find"]
        write_split(split_files(files), split)
    total = time.perf_counter() - start
    seconds["split"] = total - sum(seconds.values())
    return {"seconds": total, "processor": time.process_time() - busy, "parts": seconds, "peak": memory()}


def measure(name, level, folder, work):
    environment = {**os.environ, "VIT_TF_CHECKS": str(work / "checks"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = ["--step", name, "--folder", folder, "--split", work / "split.csv", "--level", level or "none"]
    command = [sys.executable, __file__, *map(str, options)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise SystemExit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def print_table(folder, work):
    print("| step | find, s | check, s | split, s | together, s | of the processor, s | peak memory, GB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for label, name, level in ROWS:
        result = measure(name, level, folder, work)
        parts = [result["parts"].get(part, 0) for part in ("find", "check", "split")]
        cells = " | ".join(f"{seconds:.1f}" if seconds > 0.05 else "" for seconds in parts)
        numbers = f"{result['seconds']:.1f} | {result['processor']:.1f} | {result['peak'] / 1e9:.2f}"
        print(f"| {label} | {cells} | {numbers} |", flush=True)


def main():
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--folder", type=Path, help="images that exist, instead of a tree that is made")
    parser.add_argument("--work", type=Path, help="where the tree is made (the system's temporary folder)")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--split", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--level", help=argparse.SUPPRESS)
    args = parser.parse_args()
    cli.check_counts(args, "classes", "images")
    if args.step:
        print(json.dumps(step(args.step, args.folder, args.split, args.level)))
        return
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        work = Path(work)
        folder = args.folder
        if folder is None:
            start, folder = time.perf_counter(), work / "images"
            size = make_tree(folder, args.classes, args.images)
            seconds = time.perf_counter() - start
            print(f"{args.images:,} links of files of {size / 1e3:.0f} kB, made in {seconds:.0f} s\n")
        print_table(folder, work)


if __name__ == "__main__":
    cli.run(main)
