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
    """Two steps with dropout and DropPath: the second pass must draw what the first drew."""
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
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        losses = [model.train_on_batch(images, np.arange(6)) for _ in range(2)]
        results.append((losses, [np.array(keras.ops.convert_to_numpy(v.value)) for v in model.variables]))
    assert used == {"block_0", "block_1"}
    (losses, kept), (again_losses, again) = results
    # Under bfloat16 gradients are rounded elsewhere: a step of SGD at 0.01 moves weights by less than this.
    tolerance = 1e-6 if dtype == "float32" else 1e-3
    np.testing.assert_allclose(again_losses, losses, rtol=tolerance)
    for first, second in zip(kept, again):
        np.testing.assert_allclose(second, first, atol=tolerance)
