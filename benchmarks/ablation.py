"""What each ingredient of the CIFAR-10 recipe contributes: runs of the recipe with one change.

    python benchmarks/ablation.py --data cifar10.npz                       # 5 minutes per row and seed
    python benchmarks/ablation.py --data cifar10.npz --minutes 10 --seeds 3
    python benchmarks/ablation.py --data cifar10.npz --only recipe adamw   # some rows

A change is of options of `vit-tf train`, or one of the ideas in `benchmarks/recipe_ideas.py`.
Every row has the same minutes of training, so that a slow ingredient has fewer epochs. The table compares the
accuracy on the 5,000 validation images, by which the recipe was chosen. Finished runs in --out are not
repeated: name another folder when the recipe has changed. Ctrl-C saves the present run, which the same
command resumes. The table is printed and written to OUT/ablation.md; with --only, name `recipe` first, since
rows are compared with the first one.
"""

import argparse
import statistics
import sys
from pathlib import Path

from processes import exit_code

from vit_tf import files
from vit_tf.checks import require
from vit_tf.commands import parser as cli

ROWS = {
    "recipe": ("the recipe", []),
    "again": ("the recipe once more", []),  # its difference is noise, as from the machine's speed
    "adamw": (
        "AdamW at 2e-3 instead of Muon, batches of 128",
        ["--optimizer", "adamw", "--learning-rate", "2e-3", "--batch-size", "128"],
    ),
    "one-size": ("32 pixels throughout", ["--progressive-resizing", "none"]),
    "four-sizes": ("16, 20, 24 and 32 pixels", ["--progressive-resizing", "0.5,0.625,0.75,1"]),
    "whitened": (
        "`vit_cifar10`: two convolutions of whitened pixels, four blocks",
        ["--variant", "vit_cifar10"],
    ),
    "overlap": (
        "`vit_cifar10` without whitening",
        ["--variant", "vit_cifar10", "--set", "patch_stem=overlap"],
    ),
    "patches": (
        "`vit_cifar10` with plain patches of 4x4 pixels",
        ["--variant", "vit_cifar10", "--set", "patch_stem=conv"],
    ),
    "two-blocks": ("two blocks", ["--set", "num_layers=2"]),
    "four-blocks": ("four blocks", ["--set", "num_layers=4"]),
    "narrow": (
        "tokens of 192 numbers",
        ["--set", "hidden_dim=192", "num_heads=6", "mlp_dim=384"],
    ),
    "wide-stem": ("96 channels in the stem", ["--set", "stem_width=96"]),
    "shallow-stem": ("four convolutions in the stem instead of five", ["--set", "stem_blocks=[1,1]"]),
    "no-positions": ("no learned positions", ["--set", "position_table=False"]),
    "token": ("a class token instead of average pooling", ["--set", "pooling=token"]),
    "gelu": ("GELU instead of ReLU", ["--set", "activation=gelu"]),
    "float32": ("float32", ["--no-mixed-precision"]),
    "hard-labels": ("no label smoothing", ["--label-smoothing", "0"]),
    "no-shift": ("no shifts", ["--crop", "none"]),
    "ema": ("averaged weights, momentum 0.98: of about 50 steps", ["--ema", "0.98"]),
    "batch-128": ("batches of 128 at 3e-3", ["--batch-size", "128", "--learning-rate", "3e-3"]),
    "batch-512": ("batches of 512 at 6e-3", ["--batch-size", "512", "--learning-rate", "6e-3"]),
    "decay": ("weight decay 0.2", ["--weight-decay", "0.2"]),
    "erasing": ("random erasing of half of the images", ["--random-erasing", "0.5"]),
    "augmentation": ("RandAugment and erasing", ["--randaugment", "5", "--random-erasing", "0.25"]),
}
IDEAS = {
    "lookahead": "look-ahead: every 5 steps half of the way",
    "muon-steps": "three iterations in Muon instead of five",
    "slow-stem": "half the learning rate in the stem's convolutions",
    "fast-stem": "twice the learning rate in the stem's convolutions",
    "slow-adam": "half the learning rate of what AdamW trains: head, norms, biases, positions",
    "fast-adam": "twice the learning rate of what AdamW trains",
    "free-head": "no weight decay of the head",
    "growing-batches": "batches of 256, and of 512 from the middle of the run",
    "alternating-flips": "each image mirrored in every second epoch",
    "hard-images": "from the middle of the run the harder half of each batch",
}
ACCURACY = "validation_accuracy"
MEANS = (ACCURACY, "epochs", "images_per_second")  # over the seeds
IDEA_SCRIPT = Path(__file__).with_name("recipe_ideas.py")
DESCRIPTIONS = {name: description for name, (description, _) in ROWS.items()} | IDEAS


def main(arguments=None):
    args = parse_arguments(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for seed in range(args.seeds):
        for name in args.only or DESCRIPTIONS:
            results.setdefault(name, []).append(run(args, name, seed))
            table = markdown(results)
            with files.atomic_path(args.out / "ablation.md") as partial:
                partial.write_text(table + "\n", "utf-8")
    print(table)


def parse_arguments(arguments):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10, see `vit-tf train`")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training per run (5)")
    parser.add_argument("--seeds", type=int, default=1, help="runs per row (1)")
    names = ", ".join(DESCRIPTIONS)
    parser.add_argument("--only", nargs="+", choices=DESCRIPTIONS, metavar="ROW", help=f"some of {names}")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="default: %(default)s")
    args = parser.parse_args(arguments)
    cli.check_counts(args, "seeds")
    return args


def run(args, name, seed):
    """Trains, unless the run is finished; returns its metrics."""
    folder = args.out / f"{name}-{args.minutes:g}-{seed}"
    metrics = folder / "metrics.json"
    if not metrics.is_file():
        if name in IDEAS:
            command = [IDEA_SCRIPT, name]
        else:
            command = ["-m", "vit_tf.commands.main", "train", *ROWS[name][1]]
        limits = ["--minutes", str(args.minutes), "--seed", str(seed)]
        print(f"{DESCRIPTIONS[name]}, seed {seed}", flush=True)
        line = [sys.executable, *command, "--data", args.data, *limits, "--out", folder]
        if code := exit_code(line):
            if code == 130:
                raise KeyboardInterrupt
            raise ValueError(f"{name!r} failed: see its output above")
    require_same_data(folder, args.data)
    return files.read_json(metrics)


def require_same_data(folder, data):
    """Raises a ValueError if a finished run had other data."""
    config = files.read_json(folder / "config.json")
    used = config.get("command", config).get("data")  # of `vit-tf train`, or of `recipe_ideas.py`
    message = f"{folder} has a run with --data {used}, got {data}: name another folder with --out"
    require(used == data, message)


def markdown(results):
    """Returns a table of {row: [metrics per seed]}, each run compared with that of the first row's same seed.

    The seed also chooses the validation images, so that accuracies differ more between seeds than within one.
    """
    lines = [
        "| training | epochs | images/s | validation accuracy | difference | of each seed |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    reference = next(iter(results.values()))
    for name, runs in results.items():
        means = {key: statistics.mean(m[key] for m in runs) for key in MEANS}
        differences = [100 * (own[ACCURACY] - other[ACCURACY]) for own, other in zip(runs, reference)]
        lines.append(
            f"| {DESCRIPTIONS[name]} | {means['epochs']:.1f} | {means['images_per_second']:.0f} | "
            f"{means[ACCURACY]:.1%} | {statistics.mean(differences):+.1f} | "
            f"{', '.join(f'{difference:+.1f}' for difference in differences)} |"
        )
    return "\n".join(lines).replace("%", " %")


if __name__ == "__main__":
    cli.run(main)
