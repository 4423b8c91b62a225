import os
import subprocess
import sys
from types import SimpleNamespace

import keras
import pytest
from support.cases import small

from vit_tf import build_vit
from vit_tf.training.distribution.layout import axes_of, layout_map

FAMILIES = (
    "vit_base_patch16_224 vit_pwee_patch16_reg1_gap_256 vit_large_patch14_xp_224 "
    "eva02_large_patch14_clip_336 vit_base_patch16_siglip_224 vit_small_patch16_18x2_224 "
    "deit_base_distilled_patch16_384 vit_base_r26_s32_224 beitv2_large_patch16_224"
).split()


def mesh(count=2):
    return SimpleNamespace(axis_names=("batch", "model"), shape=(2, count))


@pytest.mark.parametrize(
    "path, shape, expected",
    [
        ("block_3/attention/qkv/kernel", (64, 192), [None, "model"]),
        ("block_3/attention/qkv/bias", (192,), ["model"]),
        ("block_3/attention/projection/kernel", (64, 64), ["model", None]),
        ("block_3/attention/projection/bias", (64,), [None]),
        ("block_3/mlp/fc1/kernel", (64, 256), [None, "model"]),
        ("block_3/mlp/fc2/kernel", (256, 64), ["model", None]),
        ("patch_embedding/projection/kernel", (16, 16, 3, 64), [None] * 4),
        ("patch_encoder/position_embedding", (1, 197, 64), [None, None, "model"]),
        ("head/kernel", (64, 1000), [None, "model"]),
        ("head/kernel", (64, 5), [None, None]),  # two devices do not divide five classes
    ],
)
def test_axes(path, shape, expected):
    assert axes_of(path, shape, mesh()) == expected


@pytest.mark.parametrize("variant", FAMILIES)
def test_all_matrices_of_blocks_are_divided(variant):
    model = build_vit(variant, **{**small(variant), "num_layers": 1})
    for variable in model.variables:
        axes = axes_of(variable.path, tuple(variable.shape), mesh())
        in_block = variable.path.startswith(("block_", "pooling"))
        if in_block and variable.name == "kernel":
            assert axes.count("model") == 1, variable.path


def test_mistakes():
    keras_mesh = SimpleNamespace(axis_names=("batch",), shape=(2,))
    with pytest.raises(ValueError, match="needs an axis 'model'"):
        layout_map(build_vit("vit_tiny_patch16_224", **small("vit_tiny_patch16_224")), keras_mesh)
    with pytest.raises(ValueError, match="no encoder blocks"):
        layout_map(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), mesh())


DIVIDED = """
import sys
import keras
from vit_tf import build_vit
from vit_tf.training import layout_map, make_optimizer
from vit_tf.training.distribution.layout import ViTModelParallel, axes_of

SIZES = dict(image_size=64, hidden_dim=512, num_layers=1, num_heads=8, mlp_dim=1024)
mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"), keras.distribution.list_devices())
if sys.argv[1] == "layout_map":
    layouts = layout_map(build_vit("vit_b16", **SIZES), mesh)
    distribution = keras.distribution.ModelParallel(layout_map=layouts)
else:  # that of the commands
    distribution = ViTModelParallel(mesh)
keras.distribution.set_distribution(distribution)
model = build_vit("vit_b16", **SIZES)
optimizer = make_optimizer(model, "adamw", ema=0.9)
optimizer.build(model.trainable_variables)
slots = [s for group in (optimizer._momentums, optimizer._velocities, optimizer.averages) for s in group]
count = 0
for index, variable in enumerate([*model.trainable_variables, *slots]):
    path = model.trainable_variables[index % len(model.trainable_variables)].path
    value = variable.value
    if value.nbytes > 1e6 and "model" in axes_of(path, value.shape, mesh):
        count += 1
        assert value.addressable_shards[0].data.nbytes * 2 == value.nbytes, variable.path
print(count)
"""


@pytest.mark.slow
@pytest.mark.tensorflow_only("JAX runs in a process of its own here")
@pytest.mark.parametrize("source", ["layout_map", "command"])
def test_large_variables_lie_divided_on_four_devices(source):
    """Each weight over 1 MB that the layout divides, its moments and its average: half of it on a device."""
    pytest.importorskip("jax")
    flags = "--xla_force_host_platform_device_count=4"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", DIVIDED, source], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) == 4 * 5  # qkv, projection, fc1, fc2 and the head
