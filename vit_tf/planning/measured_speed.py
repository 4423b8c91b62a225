"""The speed of training that benchmarks/gpu.py or benchmarks/speed.py measured."""

import json
from pathlib import Path
from statistics import median

from vit_tf.checks import check_number, require, shown
from vit_tf.planning.cluster import Speed


def read_measured_speed(path: str | Path, precision: str) -> Speed:
    """Returns the `Speed` of vit_tf's fastest training in a file of benchmarks.

    The measured images/s count as FLOP/s, so that they hold for other variants, too.

    Args:
        path: gpu.json of `benchmarks/gpu.py` or speed.json of `benchmarks/speed.py`.
        precision: "float32" or "bfloat16"; gpu.json has bfloat16 alone.

    Raises:
        ValueError: the file is neither, or has no training in this precision.
    """
    try:
        content = json.loads(Path(path).read_text("utf-8"))
        runs = list(list_runs(content))
        for *_, rate, flops, _ in runs:
            check_number("images/s times FLOPs", rate * flops, "(0, inf)")
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        expected = "--measured must be a gpu.json or speed.json of the benchmarks"
        raise ValueError(f"{expected}, and {shown(str(path))} is neither") from None
    runs = [run for run in runs if run[0] == precision]
    require(runs, f"{shown(str(path))} has no training of vit_tf in {precision}: choose another --precision")
    _, model, batch_size, rate, flops, machine = max(runs, key=lambda run: run[3] * run[4])
    images = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    text = f"{images} images/s of {model} were measured at batch {batch_size} in {precision} on {machine}"
    return Speed(rate * flops, f"{text}; other sizes train at the same FLOP/s")


def list_runs(content):
    """Yields (precision, model, batch size, images/s, FLOPs of a step per image, machine)."""
    if "groups" not in content:
        machine, vit = content["machine"], content.get("vit") or {"steps": {}}
        for size, seconds in vit["steps"].items():
            yield "bfloat16", "vit_base_patch16_224", int(size), int(size) / seconds, vit["flops"], machine
        return
    machine = content["machine"]["cpu"] + f", {content['machine']['cores']} cores"
    for group in content["groups"]:
        if group["kind"] != "training":
            continue
        for name, entry in group["entries"].items():
            if not name.startswith("ours"):
                continue
            for size, turns in entry["seconds"].items():
                rate = int(size) * group["batches"] / median(time for times in turns for time in times)
                model = f"{group['model']} at {group['image_size']}"
                yield group["precision"], model, int(size), rate, group["flops_per_image"], machine
