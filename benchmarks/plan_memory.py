"""The memory that `vit-tf plan` predicts, compared with JAX's own numbers for the same training steps.

    python benchmarks/plan_memory.py                  # one to three minutes
    python benchmarks/plan_memory.py --quick --json   # one small model

For each model the script prints:

- step: weights, moments, gradients and activations of a compiled AdamW step in float32 on the CPU. XLA says
  how large its arguments and its temporary buffers are (`compiled.memory_analysis()`).
- kept: what the forward pass keeps for the backward pass, by the shapes of the residuals of `jax.vjp`,
  weights aside: in bfloat16, and in float32 with rematerialised blocks. XLA's temporary buffers on a CPU say
  nothing about either: it computes bfloat16 in float32, and undoes rematerialisation.
"""

import argparse
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import keras
import numpy as np

from vit_tf import build_vit
from vit_tf.planning import measure_workload, step_memory
from vit_tf.training import make_optimizer
from vit_tf.training.loop.engines import epoch_functions
from vit_tf.training.run import rematerialized_blocks

VARIANT = "vit_tiny_patch16_224"
MODELS = {
    "ViT-Ti/16 at 224": {},
    "ViT-Ti/16 at 112": {"image_size": 112},
    "ViT-S/16 at 224, 4 blocks": {"hidden_dim": 384, "num_heads": 6, "mlp_dim": 1536, "num_layers": 4},
    "ViT-B/16 at 224, 2 blocks": {"hidden_dim": 768, "num_heads": 12, "mlp_dim": 3072, "num_layers": 2},
    "12 heads of 16, 4 blocks": {"num_heads": 12, "num_layers": 4},
}
QUICK = {"2 blocks": {"image_size": 96, "num_layers": 2}}


def build(options, precision="float32", remat=False):
    """Returns a model in a precision, with or without rematerialised blocks."""
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    with rematerialized_blocks() if remat else nullcontext():
        return build_vit(VARIANT, num_classes=10, **options)


def shapes_of(variables):
    return [jax.ShapeDtypeStruct(variable.shape, variable.dtype) for variable in variables]


def measure_step(options, batch_size):
    """Returns the bytes of a compiled training step: state, batch and temporary buffers."""
    model = build(options)
    images = keras.Input(model.input_shape[1:])
    augmentation = keras.Model(images, keras.layers.Identity()(images))
    optimizer = make_optimizer(model, "adamw")
    optimizer.build(model.trainable_variables)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    step = epoch_functions.make_step(model, augmentation, optimizer, loss)
    groups = epoch_functions.groups(model, augmentation, optimizer)
    values = {name: shapes_of(variables) for name, variables in groups.items()}
    images = jax.ShapeDtypeStruct((batch_size, *model.input_shape[1:]), "float32")
    labels = jax.ShapeDtypeStruct((batch_size, 10), "float32")
    compiled = jax.jit(step, donate_argnums=0).lower(values, images, labels, np.float32(1e-3)).compile()
    sizes = compiled.memory_analysis()
    return sizes.argument_size_in_bytes + sizes.temp_size_in_bytes


def measure_kept(options, batch_size, precision, remat):
    """Returns the bytes that differentiation keeps, without weights and their copies."""
    model = build(options, precision, remat)
    others = [variable.value for variable in model.non_trainable_variables]
    weights = shapes_of(model.trainable_variables)
    images = jax.ShapeDtypeStruct((batch_size, *model.input_shape[1:]), "float32")

    def backward(weights, images):
        return jax.vjp(
            lambda *x: model.stateless_call(x[0], others, x[1], training=True)[0], weights, images
        )[1]

    of_weights = {tuple(weight.shape) for weight in weights}
    kept = jax.tree.leaves(jax.eval_shape(backward, weights, images))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in kept if leaf.shape not in of_weights)


def compare(name, options, batch_size):
    """Yields (model, what, predicted bytes, measured bytes)."""
    keras.config.set_dtype_policy("float32")
    workload = measure_workload(VARIANT, num_classes=10, **options)
    yield name, "step", step_memory(workload, batch_size).total, measure_step(options, batch_size)
    for precision, remat in (("bfloat16", False), ("float32", True)):
        predicted = step_memory(workload, batch_size, precision, remat=remat).activations
        if remat:  # differentiation has not recomputed a block yet
            one = step_memory(workload, batch_size, precision).activations - outside(workload, batch_size)
            predicted -= one / workload.num_blocks
        kind = f"kept, {precision}" + (", remat" if remat else "")
        yield name, kind, predicted, measure_kept(options, batch_size, precision, remat)
    keras.config.set_dtype_policy("float32")


def outside(workload, batch_size):
    """Returns the predicted bytes of what lies outside the blocks, in float32."""
    from vit_tf.planning.device_memory import KEPT

    return batch_size * 4 * (KEPT["float32"][2] * workload.outside + workload.pixels)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="one small model")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    args = parser.parse_args()
    models = QUICK if args.quick else MODELS
    rows = [row for name, options in models.items() for row in compare(name, options, args.batch_size)]
    if args.json:
        print(json.dumps(rows))
        return
    print(f"jax {jax.__version__}, batch {args.batch_size}\n")
    print("| model | what | predicted, MB | measured, MB | predicted / measured |\n|---|---|---:|---:|---:|")
    for name, what, predicted, measured in rows:
        numbers = f"{predicted / 1e6:,.1f} | {measured / 1e6:,.1f} | {predicted / measured:.2f}"
        print(f"| {name} | {what} | {numbers} |")


if __name__ == "__main__":
    main()
