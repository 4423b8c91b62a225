"""Speed of our ViTs against other libraries and against this machine's matrix products.

    python benchmarks/speed.py                                   # everything, hours on two cores
    python benchmarks/speed.py --quick --out runs/speed-quick    # a round of the most important, half an hour
    python benchmarks/speed.py --trial --out runs/speed-trial    # tiny models, to try it out
    python benchmarks/speed.py --only inference --models vit_b16 --precisions float32 --out runs/b16
    python benchmarks/speed.py --resume                          # continue after an interruption

Each contestant has a process of its own. Those of a group (one model, task and precision) are built and
warmed up, two at a time; then they take turns, round by round, so that a slow minute of a shared machine
meets all of them. A turn is about a second of calls, or one call where that is longer. The product of two
float32 or bfloat16 matrices through TensorFlow takes a turn in each round, too: it is the limit that the
shares refer to. A share is FLOPs of the model's matrix products (`count_flops`) / time / limit; training
takes three times the FLOPs of inference, less the gradient of the images.

- inference: what a user of the library calls. Keras models: `tf.function(model)` with `training=False`, and
  `jax.jit` of `stateless_call`, since `predict` adds Python's overhead to each batch. timm:
  `inference_mode`. OpenVINO and ONNX Runtime run timm's model and this project's, converted in a process
  apart. bfloat16 is Keras's policy "bfloat16" ("mixed_bfloat16" casts all weights in each call),
  `model.to(bfloat16)`, OpenVINO's precision hint.
- training: one step with AdamW (learning rate 1e-4, decay 0.05), float32 weights, no dropout. Keras:
  `train_on_batch`, with "mixed_bfloat16". timm: PyTorch's AdamW, `autocast`.
- resolution: inference at batch 1 against the side of the image; memory above the weights is the process's
  peak less what it held when the model was built. In the first of --precisions.
- families: inference of DINOv3's ViTs at 256 pixels against the plain ViT of the same size, and timm's. The
  time per token says what rotary positions cost.
- tutorial: the Keras tutorial's CIFAR-10 ViT, with `fit`, against our variant by the preset of
  scripts/train_cifar10.py, with `fit` and with the script's loop; the same augmentation in both. `fit` is
  measured without its wait at the end of an epoch (`fit.py`). The tutorial's own has wider heads and a
  large classifier: the table has its parameters.

What takes long to compile is measured in inference on the first of --models alone, and "resolution" has few
contestants; --contestants names those to measure in everything that they can do. A call longer than two
seconds has its turn in every second round. A contestant that fails costs its own cells. OUT/speed.json has
every time, OUT/speed.md the tables, OUT/speed.png the picture; they are written after each group.
"""

import argparse
import datetime
import gc
import importlib.metadata
import math
import os
import platform
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from vit_tf.checks import suggestion

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from contestants import CONTESTANTS, GEMM, RESOLUTION_DEFAULT, Dimensions, Job, why_not
from contestants.figure import speeds
from contestants.pool import Worker, WorkerError, free_memory
from contestants.tables import describe, report
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vit_tf import build_vit, count_flops, files, plots
from vit_tf.commands import parser as cli
from vit_tf.cores import num_cores
from vit_tf.variants import get_variant

KINDS = ("limit", "inference", "training", "families", "resolution", "tutorial")
PRECISIONS = ("float32", "bfloat16")
MODELS = {
    "vit_b16": Dimensions(16, 768, 12, 12, 3072),
    "vit_s16": Dimensions(16, 384, 12, 6, 1536),
    "vit_ti16": Dimensions(16, 192, 12, 3, 768),
    "vit_l16": Dimensions(16, 1024, 24, 16, 4096),
    "tiny": Dimensions(16, 64, 2, 2, 128, num_classes=10),
}
FAMILIES = {"vit_small_patch16_dinov3": "vit_s16", "vit_base_patch16_dinov3": "vit_b16"}  # and the plain ViT
FAMILY_BATCH = 8
LABELS = {"vit_b16": "ViT-B/16", "vit_s16": "ViT-S/16", "vit_ti16": "ViT-Ti/16", "vit_l16": "ViT-L/16"}
PACKAGES = (
    "tensorflow keras jax torch timm keras-hub zeromodels openvino onnxruntime".split()  # in the tables
)
BUILD_SECONDS, USUAL_SPEED = 15, 4e11  # for the ETA: of a worker's start; FLOP/s
LONG_CALL = 2.0  # seconds; such a call has its turn in every second round
MEMORY_RESERVE = 1e9  # bytes


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    image_size: int
    resolutions: tuple
    matrix_side: int
    training_batch: int
    tutorial_batch: int
    tutorial_batches: int
    turn_seconds: float
    family_size: int = 256


FULL = Scale(224, (224, 384, 512, 768, 1024), 4096, 8, 256, 4, 1.0)
QUICK = Scale(224, (224, 512, 1024), 4096, 8, 256, 2, 1.0)
TRIAL = Scale(32, (32, 64), 256, 8, 16, 2, 0.02, 32)


@dataclass(frozen=True)
class Group:
    """What is measured together: the contestants of one model, task and precision."""

    kind: str
    precision: str
    names: tuple
    rounds: int
    scale: Scale
    batch_sizes: tuple = ()
    model: str = ""
    image_size: int = 0
    variant: str = ""

    @property
    def key(self):
        batches = "/".join(map(str, self.batch_sizes))
        parts = (
            self.kind,
            self.variant or LABELS.get(self.model, self.model),
            self.image_size or "",
            self.precision,
        )
        return " ".join(str(part) for part in (*parts, f"batch {batches}" if batches else "") if part)

    @property
    def batches(self):
        return self.scale.tutorial_batches if self.kind == "tutorial" else 1

    @property
    def job(self):
        dimensions = MODELS.get(self.model)
        job = Job(self.kind, self.precision, self.batch_sizes, self.image_size, dimensions, self.batches)
        return replace(job, variant=self.variant)

    def turn_seconds(self, batch_size):
        """About how long a contestant's turn takes."""
        flops = flops_per_image(self.kind, self.model, self.image_size, self.variant) or 4e9
        return max(self.scale.turn_seconds, flops * batch_size * self.batches / USUAL_SPEED)

    def seconds_of_turns(self, batch_size):
        seconds = self.turn_seconds(batch_size)
        return seconds * (self.rounds if seconds <= LONG_CALL else -(-self.rounds // 2))

    @property
    def expected_seconds(self):
        matrix_product = BUILD_SECONDS + self.rounds * self.scale.turn_seconds
        turns = sum(map(self.seconds_of_turns, self.batch_sizes))
        return matrix_product + len(self.names) * (BUILD_SECONDS / builds_together() + turns)


def builds_together():
    """Returns how many workers are built at the same time: mostly one thread each."""
    return min(2, num_cores())


@cache
def flops_per_image(kind, model, image_size, variant=""):
    """Returns the FLOPs of a call for one image, None where they are not counted."""
    if model not in MODELS:
        return None
    sizes = {} if variant else asdict(MODELS[model])
    table = count_flops(build_vit(variant or "vit_b16", image_size=image_size, **sizes))
    gc.collect()  # the model's weights
    if kind != "training":
        return table.totals.flops
    stem = next(row.flops for row in table.rows if row.component == "patch embedding")
    return 3 * table.totals.flops - stem


# ---------------------------------------------------------------------------------------------------
# Plan
# ---------------------------------------------------------------------------------------------------
def parse_arguments(arguments):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"some of {','.join(KINDS)}")
    parser.add_argument("--models", help=f"some of {','.join(LABELS)}; by default vit_b16,vit_s16")
    parser.add_argument("--contestants", help=f"some of {','.join(CONTESTANTS)}")
    parser.add_argument("--precisions", help="float32, bfloat16 or both, the default")
    parser.add_argument("--batch-sizes", help="of inference, by default 1,8,32")
    parser.add_argument("--rounds", type=int, help="5 by default, 1 with --quick and --trial")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument(
        "--quick", action="store_true", help="one round, fewer sizes, and nothing that takes long to compile"
    )
    scale.add_argument("--trial", action="store_true", help="tiny models, one round, to try the script")
    parser.add_argument("--out", type=Path, default=Path("runs/speed"))
    parser.add_argument("--resume", action="store_true", help="keep the groups that OUT has already")
    return parser.parse_args(arguments)


def chosen(option, text, choices, default):
    """Returns the tuple of names in a comma-separated option."""
    names = tuple(name for name in (text or "").split(",") if name) if text is not None else default
    for name in names:
        if name not in choices:
            raise ValueError(
                f"--{option} must be some of {', '.join(choices)}, got {name!r}{suggestion(name, choices)}"
            )
    if not names:
        raise ValueError(f"--{option} is empty: give some of {', '.join(choices)}")
    return tuple(dict.fromkeys(names))


def batch_sizes(text, default):
    sizes = tuple((text or "").split(",")) if text is not None else default
    if not all(str(size).isdecimal() and int(size) > 0 for size in sizes):
        raise ValueError(f"--batch-sizes must be positive numbers such as 1,8,32, got {text!r}")
    return tuple(sorted({int(size) for size in sizes}))


def make_plan(args):
    """Returns the list of `Group` that the arguments ask for.

    Raises:
        ValueError: an argument is out of range, or nothing is left to measure.
    """
    rounds = args.rounds if args.rounds is not None else (1 if args.quick or args.trial else 5)
    if rounds < 1:
        raise ValueError(f"--rounds must be 1 or more, got {rounds}")
    kinds = chosen("only", args.only, KINDS, KINDS)
    precisions = chosen("precisions", args.precisions, PRECISIONS, PRECISIONS)
    models = chosen("models", args.models, tuple(LABELS), ("vit_b16", "vit_s16"))
    models = ("tiny",) if args.trial else models
    sizes = batch_sizes(args.batch_sizes, (1, 2) if args.trial else (1, 8) if args.quick else (1, 8, 32))
    scale = TRIAL if args.trial else QUICK if args.quick else FULL
    named = args.contestants and chosen("contestants", args.contestants, tuple(CONTESTANTS), ())

    def group(kind, precision, batch_sizes=(), model="", image_size=0, variant=""):
        names = select(kind, model == models[0] and not args.quick, named)
        if args.quick and not named:
            names = tuple(name for name in names if not CONTESTANTS[name].options.get("xla"))
        return Group(kind, precision, names, rounds, scale, batch_sizes, model, image_size, variant)

    plan = [group("limit", precision) for precision in precisions]
    for model in models:
        for kind, batches in (("inference", sizes), ("training", (scale.training_batch,))):
            plan += [group(kind, precision, batches, model, scale.image_size) for precision in precisions]
    plan += [
        group("families", precision, (FAMILY_BATCH,), model, scale.family_size, variant)
        for variant, model in FAMILIES.items()
        for precision in precisions
        if not args.trial or variant == next(iter(FAMILIES))
    ]
    plan += [group("resolution", precisions[0], (1,), models[0], side) for side in scale.resolutions]
    plan.append(group("tutorial", precisions[0], (scale.tutorial_batch,)))
    plan = [group for group in plan if group.kind in kinds and (group.names or group.kind == "limit")]
    if not plan:
        raise ValueError(
            f"nothing to measure: none of --contestants {args.contestants} does {', '.join(kinds)}"
        )
    return plan


def select(kind, is_first_model, named):
    """Returns the names of the contestants for a kind of task."""
    if named:
        return tuple(name for name in named if kind in CONTESTANTS[name].kinds)
    return tuple(
        name
        for name, contestant in CONTESTANTS.items()
        if kind in contestant.kinds
        and (kind != "resolution" or name in RESOLUTION_DEFAULT)
        and (not contestant.slow_build or (kind == "inference" and is_first_model))
    )


# ---------------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------------
def measure(group, logs, advance):
    """Measures a group; returns its dict for speed.json."""
    reasons = {name: why_not(CONTESTANTS[name], group.precision) for name in group.names}
    pending = [name for name, reason in reasons.items() if reason is None]
    record = {
        "key": group.key,
        **{key: getattr(group, key) for key in ("kind", "precision", "image_size", "rounds", "batches")},
        "model": LABELS.get(group.model, group.model),
        "names": list(group.names),
        "batch_sizes": list(group.batch_sizes),
        "matrix_side": group.scale.matrix_side,
        "variant": group.variant,
        "tokens": {name: count_tokens(group, name) for name in group.names if group.variant},
        "flops_per_image": flops_per_image(group.kind, group.model, group.image_size, group.variant),
        "skipped": {name: reason for name, reason in reasons.items() if reason},
        "entries": {},
    }
    with ExitStack() as stack:
        job = Job("limit", group.precision, (group.scale.matrix_side,))
        limit = start(GEMM, job, logs / "matrix product.log", stack)
        record["limit"] = limit[1]
        advance(BUILD_SECONDS)
        while True:
            with ExitStack() as wave:
                workers = start_wave(group, pending, logs, wave, record["entries"], advance)
                take_turns(group, [limit, *workers], job.batch_sizes, advance)
            if not pending:
                return record


def count_tokens(group, name):
    """Returns how many tokens a contestant's model has in the family of a group."""
    plain = CONTESTANTS[name].options.get("plain", False)
    config = get_variant("vit_b16" if plain else group.variant, image_size=group.image_size)
    return math.prod(config.native_grid) + config.num_prefix_tokens


def start(contestant, job, log, stack):
    """Starts, builds and warms up a worker, which ends with `stack`. Returns (worker, its entry)."""
    entry = {"label": contestant.label, "seconds": {}}
    worker = stack.enter_context(Worker(contestant, job, log))
    try:
        entry.update(worker.ask("build"), warm_up_seconds=0.0)
        for batch_size in job.batch_sizes:
            answer = worker.ask("warm_up", batch_size=batch_size)
            entry["warm_up_seconds"] += answer.pop("warm_up_seconds")
            entry.update(answer)
    except WorkerError as error:
        fail(worker, entry, error)
    return worker, entry


def fail(worker, entry, error):
    worker.close()
    entry["failed"] = str(error)


def start_wave(group, pending, logs, stack, entries, advance):
    """Starts as many of `pending` as fit into memory beside each other, and takes them from it."""
    workers, together = [], builds_together()

    def started(name):
        log = logs / f"{name}.log"
        return start(CONTESTANTS[name], group.job, log, stack)

    while pending and (not workers or fits(workers, together)):
        names = [pending.pop(0) for _ in range(min(together, len(pending)))]
        with ThreadPoolExecutor(together) as threads:
            for name, (worker, entry) in zip(names, threads.map(started, names)):
                entries[name] = entry
                workers.append((worker, entry))
                advance(BUILD_SECONDS / together)
    return workers


def fits(workers, together):
    """Tells whether the next workers could need as much as the largest did, while these stay."""
    largest = max((entry.get("peak", 0) for _, entry in workers), default=0)
    return free_memory() > together * 1.2 * largest + MEMORY_RESERVE


def take_turns(group, workers, matrix_sides, advance):
    """Lets the workers run in turns, the matrix product first; fills in their entries' seconds."""
    for turn in range(group.rounds):
        for index, (worker, entry) in enumerate(workers):
            for size in matrix_sides if index == 0 else group.batch_sizes:
                rests = turn % 2 and min(entry["seconds"].get(str(size), [[0]])[0]) > LONG_CALL
                if rests:
                    continue
                if "failed" not in entry:
                    take_turn(worker, entry, size, group.scale.turn_seconds)
                advance(group.turn_seconds(size) if index else group.scale.turn_seconds)


def take_turn(worker, entry, batch_size, seconds):
    try:
        answer = worker.ask("run", batch_size=batch_size, seconds=seconds)
    except WorkerError as error:
        fail(worker, entry, error)
        return
    entry["seconds"].setdefault(str(batch_size), []).append(answer["times"])
    entry["peak"] = answer["peak"]
    entry["idle"] = max(entry["idle"], answer["idle"])


# ---------------------------------------------------------------------------------------------------
# Results
# ---------------------------------------------------------------------------------------------------
def describe_machine():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or "unknown CPU"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return {"cpu": cpu, "cores": num_cores(), "memory_gb": memory, "python": platform.python_version()}


def installed_versions():
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def open_results(folder, resume):
    """Returns the content of speed.json to fill: that of an earlier run with `resume`, else a new one.

    Raises:
        ValueError: there are results and no `resume`, or they are of another machine or other versions.
    """
    path = folder / "speed.json"
    about = {"machine": describe_machine(), "versions": installed_versions()}
    if not path.exists():
        return {"date": datetime.date.today().isoformat(), **about, "groups": []}
    if not resume:
        raise ValueError(f"{folder} has results: continue with --resume, or choose another --out")
    try:
        results = files.read_json(path)
        earlier = {key: results[key] for key in about}
        known = {group["key"] for group in results["groups"]}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no speed.json of this command: choose another --out") from None
    if earlier != about or len(known) != len(results["groups"]):
        raise ValueError(f"{path} is of another machine or other versions: choose another --out")
    return results


def is_done(group, results):
    """Tells whether the results have a group with all of its contestants and rounds."""
    found = [record for record in results["groups"] if record["key"] == group.key]
    return any(r["rounds"] >= group.rounds and set(group.names) <= set(r["names"]) for r in found)


def save(results, folder):
    files.write_json(folder / "speed.json", results)
    with files.atomic_path(folder / "speed.md") as partial:
        partial.write_text(report(results))
    machine = describe(results["machine"])
    title = f"Images a second, and the share of the limit of matrix products\n{machine}"
    figure = speeds(results["groups"], title)
    if figure:
        plots.save(figure, folder / "speed.png")


def progress_bar():
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def main(arguments=None):
    args = parse_arguments(arguments)
    plan = make_plan(args)
    results = open_results(args.out, args.resume)
    plan = [group for group in plan if not is_done(group, results)]
    args.out.mkdir(parents=True, exist_ok=True)
    with progress_bar() as bar, tempfile.TemporaryDirectory() as logs:
        task = bar.add_task("starting", total=sum(group.expected_seconds for group in plan))
        done = 0.0
        for group in plan:
            bar.update(task, description=group.key)
            record = measure(group, Path(logs), lambda seconds: bar.advance(task, seconds))
            results["groups"] = [r for r in results["groups"] if r["key"] != group.key] + [record]
            save(results, args.out)
            done += group.expected_seconds
            bar.update(task, completed=done)
    print(report(results))
    print(f"all times, these tables and the picture are in {args.out}")
    return 0


if __name__ == "__main__":
    cli.run(main)
