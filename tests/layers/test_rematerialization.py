import contextlib

import keras
import numpy as np
import pytest

from vit_tf import build_vit
from vit_tf.layers.rematerialization import rematerialize

pytestmark = pytest.mark.every_backend


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_rematerialisation_changes_nothing(dtype, monkeypatch):
    """A step with dropout and DropPath: the second pass must draw what the first drew.

    SGD at rate 1 moves the weights by their gradients, of up to 1. Other draws change these by more than 0.8.
    """
    keras.config.set_dtype_policy(dtype)
    used = set()
    monkeypatch.setattr(
        "vit_tf.layers.blocks.rematerialize",
        lambda layer, call: used.add(layer.name) or rematerialize(layer, call),
    )
    images = np.random.default_rng(0).normal(size=(6, 16, 16, 3)).astype("float32")
    results = []
    for scope in (
        contextlib.nullcontext(),
        keras.RematScope("list_of_layers", layer_names=["block_0", "block_1"]),
    ):
        keras.utils.set_random_seed(3)
        with scope:
            model = build_vit(
                "vit_cifar10",
                **dict(image_size=16, patch_size=8, hidden_dim=8, num_layers=2, num_heads=2, mlp_dim=8),
                **dict(dropout_rate=0.2, attention_dropout_rate=0.2, drop_path_rate=0.3),
            )
        model.compile(keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        loss = model.train_on_batch(images, np.arange(6))
        results.append((loss, [np.array(keras.ops.convert_to_numpy(v.value)) for v in model.variables]))
    assert used == {"block_0", "block_1"}
    (loss, kept), (again_loss, again) = results
    np.testing.assert_allclose(again_loss, loss, rtol=1e-6)
    for first, second in zip(kept, again):  # the states of the seeds among them
        np.testing.assert_allclose(second, first, atol=1e-5 if dtype == "float32" else 0.05)
