"""Where the memory of a training step on TensorFlow goes: weights, moments, activations by kind, the rest.

    python benchmarks/training_memory.py                                    # ViT-B/16, batch 8: a minute each
    python benchmarks/training_memory.py --variant vit_s16 --precision bfloat16

The parts are computed from shapes; the peak of the process is measured (Linux only). "Activations" are what
the backward pass reads: inputs of norms and of matrix products, queries, keys and values. Scores,
probabilities and the activation of the MLP are not among them: the backward pass computes them again. The
rest of the peak are workspaces, copies of kernels in bfloat16, and unused memory of the allocator.
"""

import argparse
import os
from math import prod
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import vit_tf
from vit_tf.commands import parser as cli
from vit_tf.training import make_optimizer
from vit_tf.variants import get_variant

STEPS = 3
GB = 1e9


def main(arguments=None):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="vit_b16", help="with plain blocks (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="images per batch (8)")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args(arguments)
    config = get_variant(args.variant)
    cli.check_counts(args, "batch_size")
    check_parts(config, args.variant)
    half = args.precision == "bfloat16"
    at_start = memory("VmRSS")
    keras.config.set_dtype_policy("mixed_bfloat16" if half else "float32")
    model = vit_tf.build_vit(args.variant)
    parts = {"Python, TensorFlow and Keras": at_start}
    parts |= {f"{name}, float32": weight_bytes(model) for name in ("weights", "gradients")}
    parts["two moments of AdamW, float32"] = 2 * weight_bytes(model)
    parts |= activation_bytes(config, args.batch_size, 2 if half else 4)
    peak = measured_peak(model, args.batch_size)
    print(markdown(args, parts, peak))


def check_parts(config, variant):
    """Raises a ValueError if the step keeps other activations than those of the table."""
    kinds = config.block, config.mlp, config.activation, config.patch_stem
    rates = config.dropout_rate, config.attention_dropout_rate
    if kinds != ("encoder", "mlp", "gelu", "conv") or any(rates):
        raise ValueError(
            "expected a variant of plain patches and blocks with GELU, without dropout, such as vit_b16, "
            f"got {variant!r}"
        )


def memory(name):
    """Returns bytes of this process's resident memory: "VmRSS" is the current value, "VmHWM" the peak."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def weight_bytes(model):
    return 4 * sum(prod(variable.shape) for variable in model.trainable_variables)


def activation_bytes(config, batch_size, itemsize):
    """Returns {kind: bytes} of what the blocks keep for the backward pass."""
    tokens = prod(config.grid_size) + config.num_prefix_tokens
    widths = {
        "inputs of the norms and their outputs": 4 * config.hidden_dim,
        "queries, keys and values": 3 * config.hidden_dim,
        "output of attention": config.hidden_dim,
        "inner layer of the MLP": config.mlp_dim,
    }
    count = config.num_layers * batch_size * tokens * itemsize
    return {f"activations: {kind}": count * width for kind, width in widths.items()}


def measured_peak(model, batch_size):
    """Returns the peak memory of the process after some steps with random images."""
    optimizer = make_optimizer(model, "adamw", 1e-4, 0.05)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch_size, *model.input_shape[1:])).astype("float32")
    labels = rng.integers(0, model.output_shape[-1], batch_size)
    for _ in range(STEPS):
        model.train_on_batch(images, labels)
    return memory("VmHWM")


def markdown(args, parts, peak):
    """Returns the table of the parts, their sum and the peak, in GB."""
    rows = [*parts.items(), ("sum", sum(parts.values())), ("measured peak of the process", peak)]
    title = f"| {args.variant}, batch {args.batch_size}, {args.precision} | GB |"
    return "\n".join([title, "|---|---:|", *(f"| {name} | {value / GB:.2f} |" for name, value in rows)])


if __name__ == "__main__":
    cli.run(main)
