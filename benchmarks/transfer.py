"""What pretraining buys: a small ViT is trained on eight classes of CIFAR-10, then on cats against dogs.

    python benchmarks/transfer.py --data cifar10.npz --out runs/transfer

The script pretrains `vit_cifar10` on the 40,000 images of the other eight classes, writes 500 cats and 500
dogs as PNG files, and fine-tunes on these files in four ways with three seeds each, through the users'
commands. The 2,000 test images of cats and dogs are used once per run. Finished runs are not repeated: the
same command continues after an interruption. About 50 minutes on 2 cores.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from processes import exit_code

from vit_tf import data, files
from vit_tf.commands import parser as cli

ROOT = Path(__file__).parents[1]
PAIR = ("cat", "dog")
# Settings that help all four methods, including training from scratch.
COMMON = """--crop pad --batch-size 32 --label-smoothing 0 --mixup 0.2 --cutmix 1 --ema 0.98
    --drop-path-rate 0.2 --weight-decay 0.1 --monitor loss --flip-tta""".split()
METHODS = {
    "full fine-tuning": "--recipe full --learning-rate 1e-3 --layer-decay 0.9".split(),
    "LoRA": "--recipe lora --learning-rate 3e-3 --lora-targets qkv,projection,fc1,fc2".split(),
    "linear probe": "--recipe linear-probe".split(),
    "from scratch": "--recipe full --learning-rate 1e-3 --layer-decay 1".split(),
}


def main():
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10, in a form that `vit-tf train` takes")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--pretraining-minutes", type=float, default=30)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--images", type=int, default=500, help="training images per class")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    cli.check_counts(args, "epochs", "images", "seeds")
    own, done = {"data": args.data, "images": args.images}, args.out / "data.json"
    if not done.exists():
        args.out.mkdir(parents=True, exist_ok=True)
        write_data(data.load_cifar(args.data), args.out, args.images)
        files.write_json(done, own)
    elif (used := files.read_json(done)) != own:
        raise ValueError(f"{args.out} has runs with {used}, got {own}: name another folder with --out")

    base = args.out / "pretrained"
    # Smoothed labels make features that transfer worse: Kornblith et al., https://arxiv.org/abs/2010.16402.
    settings = ["--minutes", f"{args.pretraining_minutes:g}", "--label-smoothing", 0]
    run("train", "--data", args.out / "eight.npz", "--variant", "vit_cifar10", *settings, "--out", base)
    accuracies = {}
    for method, settings in METHODS.items():
        weights = ["--model", "vit_cifar10"] if method == "from scratch" else ["--weights", base / "model"]
        for seed in range(args.seeds):
            folder = args.out / f"{method.replace(' ', '-')}-{seed}"
            options = [*settings, *COMMON, "--epochs", args.epochs, "--seed", seed, "--out", folder]
            run("finetune", args.out / "pair", *weights, *options)
            accuracies.setdefault(method, []).append(accuracy(folder))
    print_table(accuracies, accuracy(base), args)


def write_data(images, out, num_images):
    """Writes the eight other classes as an .npz, and the pair as PNG files."""
    pair = [images.class_names.index(name) for name in PAIR]
    others = [i for i in range(len(images.class_names)) if i not in pair]
    arrays = {}
    for part in ("train", "test"):
        x, y = getattr(images, f"x_{part}"), getattr(images, f"y_{part}")
        kept = np.isin(y, others)
        arrays |= {f"x_{part}": x[kept], f"y_{part}": np.searchsorted(others, y[kept])}
        for name, label in zip(PAIR, pair):
            folder = out / "pair" / part / name
            folder.mkdir(parents=True, exist_ok=True)
            members = np.flatnonzero(y == label)[: num_images if part == "train" else None]
            for i in members:
                Image.fromarray(x[i]).save(folder / f"{i}.png")
    with files.atomic_path(out / "eight.npz") as partial:
        np.savez(partial, **arrays)


def run(command, *arguments):
    print("> vit-tf", command, *arguments, flush=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    code = exit_code(
        [sys.executable, "-m", "vit_tf.commands.main", command, *map(str, arguments)], environment
    )
    if code:
        sys.exit(code)


def accuracy(folder):
    return files.read_json(folder / "metrics.json")["accuracy"]


def print_table(accuracies, base, args):
    import tensorflow as tf

    print(
        f"\ntest accuracy on {' and '.join(PAIR)}, {args.images} training images per class, {args.epochs} "
        f"epochs; pretrained for {args.pretraining_minutes:g} minutes on the eight other classes (test "
        f"accuracy {base:.1%})\n"
        f"{os.cpu_count()} cores, {platform.machine()}, TensorFlow {tf.__version__}\n"
    )
    print("| method | mean | lowest | highest |\n|---|---:|---:|---:|")
    for method, values in accuracies.items():
        print(f"| {method} | {np.mean(values):.1%} | {min(values):.1%} | {max(values):.1%} |")
    scratch = np.mean(accuracies["from scratch"])
    gains = {m: np.mean(v) - scratch for m, v in accuracies.items() if m != "from scratch"}
    print("\nabove scratch: " + ", ".join(f"{m} {100 * gain:+.1f} points" for m, gain in gains.items()))


if __name__ == "__main__":
    cli.run(main)
