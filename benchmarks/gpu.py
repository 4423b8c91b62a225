"""Speed and accuracy on one GPU through JAX, compared with timm on PyTorch.

    python benchmarks/gpu.py --data cifar10.npz                  # everything, perhaps 12 minutes
    python benchmarks/gpu.py --only vit,timm --out runs/gpu      # some parts; results of earlier runs stay
    python benchmarks/gpu.py --cpu                               # toy sizes, to try the script on any machine

- cifar: `vit-tf train --preset gpu`, from scratch; the test images are used once.
- vit: training steps of ViT-B/16 on random images through JAX: AdamW, bfloat16 compute, float32 weights, one
  compiled step with donated state, no rematerialization.
- timm: training steps of its vit_base_patch16_224 through `torch.compile`, under bfloat16 autocast, with
  fused AdamW.

Each part runs in its own process. vit and timm also time the product of two 8192 x 8192 matrices in bfloat16;
the faster of the two is the limit to which the shares refer. A step counts as three times the FLOPs of the
forward pass, see `vit_tf.count_flops`. The results are written to OUT/gpu.json and OUT/gpu.md.
"""

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from processes import exit_code

ENVIRONMENT = dict(os.environ)  # that of the parts
os.environ["KERAS_BACKEND"] = "jax" if importlib.util.find_spec("jax") else "torch"

ROOT = Path(__file__).parents[1]
PARTS = ("cifar", "vit", "timm")
NEEDS = {"cifar": ["jax"], "vit": ["jax"], "timm": ["torch", "timm"]}
VARIANT = "vit_base_patch16_224"
FULL = dict(image_size=224, num_layers=12, batch_sizes=(128, 256), steps=20, matrix_side=8192)
FULL |= dict(preset="gpu", options=[])
TOY = dict(image_size=32, num_layers=1, batch_sizes=(2,), steps=2, matrix_side=256)
# Without the stem's 3x3 convolutions, which XLA computes slowly on a CPU.
TOY |= dict(preset="gpu-tiny", options=["--epochs", "1", "--set", "patch_stem=conv"])
# In separate processes, like the parts: JAX allocates most of the GPU's memory when it starts.
PROBES = {
    "jax": "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, jax.__version__, sep='|')",
    "torch": "import torch; gpu = torch.cuda.is_available(); name = gpu and torch.cuda.get_device_name()\n"
    "print('gpu' if gpu else 'cpu', name, torch.__version__, sep='|')",
    "timm": "import timm; print('any', 'any', timm.__version__, sep='|')",
}


def main(arguments=None):
    args = parse_arguments(arguments)
    scale = TOY if args.cpu else FULL
    args.out = args.out or Path("runs/gpu-benchmark-cpu" if args.cpu else "runs/gpu-benchmark")
    if args.part:
        write_json(
            args.out / f"gpu-{args.part}.json", TIMERS[args.part](scale, "cpu" if args.cpu else "cuda")
        )
        return 0
    os.environ["JAX_PLATFORMS"] = "cpu"  # this process only waits, and must leave the memory to the parts
    found = {library: probe(library, args.cpu) for library in PROBES}
    device = next((each.device for each in found.values() if each.platform == "gpu"), None)
    if device is None and not args.cpu:
        reasons = "; ".join(f"{name}: {found[name].problem or 'only a CPU'}" for name in ("jax", "torch"))
        raise ValueError(f"no GPU is found ({reasons}): add --cpu to try the script")
    args.out.mkdir(parents=True, exist_ok=True)
    results = read_results(args.out / "gpu.json")
    versions = [f"{library} {each.version}" for library, each in found.items() if each.version]
    machine = ", ".join([device or "CPU", platform.machine(), *versions])
    if results.setdefault("machine", machine) != machine:
        problem = f"{args.out} has results of {results['machine']}, and this is {machine}"
        raise ValueError(f"{problem}: name another folder with --out")
    has_failed = False
    for part in args.only:
        reason = why_not(part, found, args)
        if reason is None:
            print(f"== {part} ==", flush=True)
            try:
                results[part] = run_cifar(args, scale) if part == "cifar" else run_part(part, args, scale)
                write_json(args.out / "gpu.json", results)
                continue
            except OSError as error:
                reason, has_failed = str(error), True
        print(f"{part} is left out: {reason}", flush=True)
    write_table(args.out / "gpu.md", results)
    return 1 if has_failed else 0


def parse_arguments(arguments):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="CIFAR-10, in a form that `vit-tf train` takes")
    parser.add_argument(
        "--only", type=parse_parts, default=PARTS, metavar=",".join(PARTS), help="what to measure"
    )
    parser.add_argument("--out", type=Path, help="a folder, by default runs/gpu-benchmark")
    parser.add_argument("--cpu", action="store_true", help="toy sizes, without a GPU")
    parser.add_argument("--part", choices=("vit", "timm"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def parse_parts(text):
    parts = tuple(text.split(","))
    if not set(parts) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(PARTS)}, got {text!r}")
    return parts


# ---------------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------------
def environment(cpu):
    paths = filter(None, [str(ROOT), ENVIRONMENT.get("PYTHONPATH")])
    own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    own["KERAS_BACKEND"] = os.environ["KERAS_BACKEND"]
    if cpu:
        own |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return {**ENVIRONMENT, **own}


class Probe(NamedTuple):
    """What a library reports of itself, or the problem of using it."""

    platform: str = ""
    device: str = ""
    version: str = ""
    problem: str = ""


def probe(library, cpu):
    """Returns the `Probe` of a library, from a process of its own."""
    command = [sys.executable, "-c", PROBES[library]]
    done = subprocess.run(command, env=environment(cpu), capture_output=True, text=True)
    output = done.stderr if done.returncode else done.stdout
    *_, last = output.strip().splitlines() or [f"exit code {done.returncode}"]
    return Probe(problem=last) if done.returncode else Probe(*last.split("|"))


def why_not(part, found, args):
    """Returns why a part cannot run, None if it can."""
    for library in NEEDS[part]:
        if found[library].problem:
            return f"{library} cannot be used: {found[library].problem}"
        if found[library].platform == "cpu" and not args.cpu:
            return f"{library} sees no GPU"
    if part == "cifar" and not (args.data or args.cpu):
        return "it needs --data"
    return None


def run(command, args):
    if code := exit_code([sys.executable, *map(str, command)], environment(args.cpu)):
        raise OSError(f"{' '.join(map(str, command))} ended with exit code {code}")


def run_part(part, args, scale):
    options = ["--cpu"] if args.cpu else []
    run([__file__, "--part", part, "--out", args.out, *options], args)
    path = args.out / f"gpu-{part}.json"
    result = read_json(path)
    path.unlink()
    return {**result, "flops": step_flops(scale)}


def run_cifar(args, scale):
    folder = args.out / f"cifar-{scale['preset']}"  # a run in it is continued
    command = ["-m", "vit_tf.commands.main", "train", "--data", args.data or "sample"]
    run([*command, "--preset", scale["preset"], *scale["options"], "--out", folder], args)
    metrics = read_json(folder / "metrics.json")
    names = "data accuracy parameters epochs seconds compile_seconds images_per_second".split()
    return {name: metrics[name] for name in names}


def step_flops(scale):
    """Returns the FLOPs of a training step for one image."""
    import keras

    from vit_tf import build_vit, count_flops

    size = {name: scale[name] for name in ("image_size", "num_layers")}
    with keras.StatelessScope(initialize_variables=False):  # shapes are enough
        return 3 * count_flops(build_vit(VARIANT, **size)).totals.flops


# ---------------------------------------------------------------------------------------------------
# ViT-B/16 through JAX
# ---------------------------------------------------------------------------------------------------
def time_vit(scale, place):
    """Returns the FLOP/s of the matrix product, and the seconds of a training step by batch size."""
    result = {"gemm": time_jax_gemm(scale["matrix_side"]), "steps": {}}
    for batch_size in scale["batch_sizes"]:
        result["steps"][batch_size] = time_calls(
            make_vit_steps(scale, batch_size), scale["steps"], batch_size
        )
    return result


def make_vit_steps(scale, batch_size):
    """Returns a function that runs a number of training steps and waits for their end."""
    import jax
    import jax.numpy as jnp
    import keras

    from vit_tf import build_vit
    from vit_tf.training import make_optimizer
    from vit_tf.training.loop.engines import epoch_functions as device

    keras.config.set_dtype_policy("mixed_bfloat16")
    network = build_vit(VARIANT, image_size=scale["image_size"], num_layers=scale["num_layers"])
    images = keras.Input(network.input_shape[1:])
    augmentation = keras.Model(images, keras.layers.Identity()(images))
    optimizer = make_optimizer(network, "adamw", 1e-4, 0.05)
    optimizer.build(network.trainable_variables)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    step = device.make_step(network, augmentation, optimizer, loss)
    # Copies: the step donates its inputs, and the variables must keep their values.
    variables = device.groups(network, augmentation, optimizer)
    values = jax.tree.map(jnp.copy, device.values_of(variables))

    keys = jax.random.split(jax.random.key(0))
    images = jax.random.normal(keys[0], (batch_size, *network.input_shape[1:]))
    labels = jax.nn.one_hot(jax.random.randint(keys[1], (batch_size,), 0, 1000), 1000)
    batch = (images, labels, np.float32(1e-4))
    compiled = jax.jit(step, donate_argnums=0).lower(values, *batch).compile()

    def run_steps(count):
        nonlocal values
        for _ in range(count):
            values, (loss, _) = compiled(values, *batch)
        return float(loss)  # waits for the device

    return run_steps


def time_jax_gemm(side):
    """Returns the FLOP/s of a bfloat16 product of two random matrices."""
    import jax
    import jax.numpy as jnp

    a, b = (jax.random.normal(jax.random.key(i), (side, side), jnp.bfloat16) for i in range(2))
    product = jax.jit(jnp.matmul)

    def run_products(count):
        for _ in range(count):
            c = product(a, b)
        c.block_until_ready()

    return matrix_speed(run_products, side)


# ---------------------------------------------------------------------------------------------------
# The same through timm
# ---------------------------------------------------------------------------------------------------
def time_timm(scale, place):
    """See `time_vit`."""
    result = {"gemm": time_torch_gemm(scale["matrix_side"], place), "steps": {}}
    for batch_size in scale["batch_sizes"]:
        run_steps = make_timm_steps(scale, batch_size, place)
        result["steps"][batch_size] = time_calls(run_steps, scale["steps"], batch_size)
    return result


def make_timm_steps(scale, batch_size, place):
    import timm
    import torch

    torch.set_float32_matmul_precision("high")
    side = scale["image_size"]
    model = timm.create_model(VARIANT, img_size=side, depth=scale["num_layers"]).to(place).train()
    forward = torch.compile(model, dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    images = torch.randn(batch_size, 3, side, side, device=place)
    labels = torch.randint(0, 1000, (batch_size,), device=place)

    def run_steps(count):
        for _ in range(count):
            with torch.autocast(place, torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(forward(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()  # waits for the device

    return run_steps


def time_torch_gemm(side, place):
    import torch

    a, b = (torch.randn(side, side, device=place, dtype=torch.bfloat16) for _ in range(2))

    def run_products(count):
        for _ in range(count):
            torch.matmul(a, b)
        if place == "cuda":
            torch.cuda.synchronize()

    return matrix_speed(run_products, side)


TIMERS = {"vit": time_vit, "timm": time_timm}


# ---------------------------------------------------------------------------------------------------
# Clock and table
# ---------------------------------------------------------------------------------------------------
def median_seconds(run_calls, count, rounds=5):
    """Returns the seconds per call: the median over rounds of `count` calls each."""
    started = time.perf_counter()
    run_calls(3)
    print(f"ready after {time.perf_counter() - started:.0f} s", flush=True)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        run_calls(count)
        times.append((time.perf_counter() - started) / count)
    return float(np.median(times))


def matrix_speed(run_products, side):
    speed = 2 * side**3 / median_seconds(run_products, 20)
    print(f"bfloat16 product of {side} x {side}: {speed / 1e12:.3g} TFLOP/s", flush=True)
    return speed


def time_calls(run_steps, count, batch_size):
    seconds = median_seconds(run_steps, count)
    print(f"batch {batch_size}: {1000 * seconds:.1f} ms, {batch_size / seconds:,.0f} images/s", flush=True)
    return seconds


def make_table(results):
    """Returns all results as Markdown: the machine, and a table with one row per measurement."""
    timed = [part for part in TIMERS if part in results]
    limit = max((results[part]["gemm"] for part in timed), default=None)
    lines = [
        results["machine"] + (f"; limit {limit / 1e12:.3g} TFLOP/s in bfloat16" if limit else ""),
        "",
        "| training | batch | images/s | ms per step | of the limit | test accuracy | time |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    if cifar := results.get("cifar"):
        lines.append(
            f"| CIFAR-10 from scratch ({cifar['data']}), {cifar['parameters']:,} parameters, "
            f"{cifar['epochs']:.0f} epochs | | {cifar['images_per_second']:,.0f} | | | "
            f"{cifar['accuracy']:.2%} | {cifar['seconds'] / 60:.1f} min, and "
            f"{cifar['compile_seconds']:.0f} s of compiling |"
        )
    labels = {"vit": "vit_tf through JAX", "timm": "timm through torch.compile"}
    for part in timed:
        for batch_size, seconds in results[part]["steps"].items():
            speed = int(batch_size) / seconds
            lines.append(
                f"| {VARIANT}, {labels[part]} | {batch_size} | {speed:,.0f} | {1000 * seconds:.1f} | "
                f"{speed * results[part]['flops'] / limit:.1%} | | |"
            )
    return "\n".join(lines)


def read_results(path):
    return read_json(path) if path.exists() else {}


def read_json(path):
    from vit_tf import files

    return files.read_json(path)


def write_json(path, content):
    from vit_tf import files

    files.write_json(path, content)


def write_table(path, results):
    from vit_tf import files

    table = make_table(results)
    with files.atomic_path(path) as partial:
        partial.write_text(table + "\n")
    print(f"\n{table}")


if __name__ == "__main__":
    from vit_tf.commands import parser as cli

    cli.run(main)
