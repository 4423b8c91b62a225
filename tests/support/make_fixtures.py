"""Writes what timm, transformers and vit-pytorch say, so that the tests need none of them:

    PYTHONPATH=.:tests python -m support.make_fixtures

(needs torch, torchvision, timm, transformers, vit-pytorch)

fixtures/parameters.json: timm's parameter counts; fixtures/logits.json: the cases of `cases.py` with
their logits; fixtures/resampled.json: timm's resampling of position tables and patch kernels;
fixtures/inside.json: timm's attention and features of the first image in the last block, and the relevance
of its class 1 by autograd.
"""

import json
import tempfile
from pathlib import Path

import timm
import torch

from support.cases import INSIDE, TIMM_NAMES, all_cases, resampling_cases, timm_case
from support.paths import FIXTURES
from support.references import (
    complete,
    reference_inside,
    reference_logits,
    reference_relevance,
    reference_resampled,
)
from vit_tf.variants import VARIANTS

FOLDER = FIXTURES


def count_parameters():
    counts = {}
    for name in TIMM_NAMES:
        with torch.device("meta"):  # shapes alone
            model = timm.create_model(name, num_classes=VARIANTS[name].num_classes)
        counts[name] = sum(parameter.numel() for parameter in model.parameters())
    return counts


def rounded(array):
    """Returns an array as lists of numbers of seven digits, all that a float32 has."""
    return [rounded(x) for x in array] if array.ndim else float(f"{array:.7g}")


def write_lines(name, items):
    """Writes a JSON list with one item a line."""
    lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in items)
    (FOLDER / name).write_text(f"[\n{lines}\n]\n")


def main():
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "parameters.json").write_text(json.dumps(count_parameters(), indent=0) + "\n")
    resampled = [case | dict(values=rounded(reference_resampled(case))) for case in resampling_cases()]
    write_lines("resampled.json", resampled)
    finished = []
    for case in all_cases():
        with tempfile.TemporaryDirectory() as folder:
            case = complete(case, Path(folder))
            logits = reference_logits(case, Path(folder))
        del case["reference"]
        finished.append(case | dict(logits=rounded(logits)))
        print(case["id"])
    write_lines("logits.json", finished)
    write_lines("inside.json", list(map(inside, INSIDE)))


def inside(name):
    """Returns what timm sees of the first image in the last block of a variant's case."""
    with tempfile.TemporaryDirectory() as folder:
        case = complete(timm_case(name), Path(folder))
        attention, features = reference_inside(case, Path(folder))
        relevance, grad_cam = reference_relevance(case, Path(folder), class_index=1)
    last = max(attention)
    return dict(
        id=name,
        layer=last,
        attention=rounded(attention[last][0]),
        features=rounded(features[last][0]),
        relevance=rounded(relevance[0]),
        grad_cam=rounded(grad_cam[0]),
    )


if __name__ == "__main__":
    main()
