"""Loading published weights: time compared with reading the file, and peak memory.

    python benchmarks/loading.py                                # ViT-L/16, three runs
    python benchmarks/loading.py --variant vit_base_patch16_224 --runs 5

The script writes the variant's weights as a .safetensors file to a temporary folder. It then measures, each
in its own process, reading the file into memory, and loading the file into a built model. Both are measured
with the file dropped from the page cache before, and with the file left in the page cache.
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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="vit_large_patch16_224")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--task", choices=("read", "load", "write"), help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        task = {"read": read, "load": load, "write": write}[args.task]
        print(json.dumps(task(args.path, args.variant)))
        return
    with tempfile.TemporaryDirectory() as folder:
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
    main()
