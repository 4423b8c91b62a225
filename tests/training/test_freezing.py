import keras
import numpy as np
import pytest

from vit_tf import build_vit
from vit_tf.training.freezing import freeze
from vit_tf.training.lora import add_lora

pytestmark = pytest.mark.every_backend

STEM = ["patch_embedding/projection", "patch_encoder/class_token", "patch_encoder/position_embedding"]
TAIL = ["norm/gamma", "norm/beta", "head/kernel", "head/bias"]


def tiny_vit(**overrides):
    small = dict(image_size=8, patch_size=4, hidden_dim=8, num_layers=3, num_heads=2, mlp_dim=16)
    stem = dict(patch_stem="conv", pooling="token", qk_norm=True)
    return build_vit("vit_cifar10", **{**small, **stem, "num_classes": 3, **overrides})


@pytest.fixture(scope="module")
def vit():
    return tiny_vit()


def trained(model):
    return {variable.path for variable in model.trainable_variables}


def paths(model, *starts):
    return {v.path for v in model.weights if v.path.startswith(starts)}


def parameters(model):
    return sum(np.prod(v.shape, dtype=int) for v in model.trainable_variables)


def test_what_is_trained(vit):
    """Each call starts anew, whatever the one before it froze."""
    everything = paths(vit, "")
    attention = {path for path in everything if path.startswith("block_") and "/attention/" in path}
    assert len(attention) == 3 * 8  # two projections and two norms, two weights each
    positions = {"patch_encoder/position_embedding"}
    for what, expected in (
        ("backbone", paths(vit, "head")),
        ("blocks:2", paths(vit, "block_2", *TAIL)),
        (0, everything - paths(vit, *STEM)),
        ("all-but-attention", attention | paths(vit, "head") | positions),
        (3, paths(vit, *TAIL)),
        ("blocks:0", everything - paths(vit, *STEM)),
        ("none", everything),
    ):
        assert freeze(vit, what) == parameters(vit)
        assert trained(vit) == expected, what
        assert len(vit.trainable_variables) == len(expected)


def test_layers_frozen_as_a_whole_are_thawed(vit):
    vit.get_layer("block_1").trainable = False
    vit.get_layer("head").trainable = False
    freeze(vit, "none")
    assert trained(vit) == paths(vit, "")
    assert trained(vit.get_layer("block_1")) == paths(vit, "block_1")
    vit.trainable = False
    freeze(vit, "backbone")
    assert trained(vit) == paths(vit, "head")


@pytest.mark.slow
def test_frozen_weights_stay_in_a_model_around_it(vit):
    outer = keras.Sequential([keras.layers.Rescaling(2.0), vit, keras.layers.Dense(2, name="outer")])
    outer.build((None, 8, 8, 3))
    freeze(vit, "blocks:3")
    outer_paths = {v.path for v in outer.layers[-1].weights}
    assert trained(outer) == paths(vit, *TAIL) | outer_paths
    outer.compile("sgd", "mse")
    assert trained(outer) == paths(vit, *TAIL) | outer_paths
    frozen = [v for v in vit.weights if not v.trainable]
    before = [np.array(v) for v in vit.weights]
    outer.fit(np.ones((2, 8, 8, 3), "float32"), np.ones((2, 2), "float32"), verbose=0)
    for variable, old in zip(vit.weights, before):
        assert (np.array(variable) == old).all() == any(variable is v for v in frozen), variable.path


@pytest.mark.parametrize("overrides", [dict(block="res_post"), dict(attention="differential", sub_norm=True)])
def test_attention_of_other_blocks(overrides):
    vit = tiny_vit(num_layers=1, **overrides)
    freeze(vit, "all-but-attention")
    inside = {path for path in paths(vit, "block_") if "/attention/" in path}
    assert {f"block_0/attention/{name}/kernel" for name in ("qkv", "projection")} < inside
    assert trained(vit) == inside | paths(vit, "head", "patch_encoder/position")


def test_parallel_attentions_are_all_trained():
    vit = tiny_vit(num_layers=2, block="parallel_things", distillation_token=True)
    freeze(vit, "all-but-attention")
    starts = [f"block_{i}/attention_{j}/" for i in (0, 1) for j in (0, 1)]
    assert trained(vit) == paths(vit, *starts, "head", "distillation_head", "patch_encoder/position")
    assert freeze(vit, "backbone") == 2 * (8 * 3 + 3)


def test_fused_attention_is_refused():
    vit = tiny_vit(num_layers=1, block="parallel_scaling")
    freeze(vit, 1)
    with pytest.raises(ValueError, match="attention and MLP by one matrix"):
        freeze(vit, "all-but-attention")
    assert trained(vit) == paths(vit, *TAIL)  # as they were


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "what, message",
    [
        ("backbon", r"one of 'none', .* got 'backbon' \(did you mean 'backbone'\?\)"),
        ("blocks:x", "`what` must be one of"),
        ("blocks:-1", "`what` must be one of"),
        (True, "`what` must be one of"),
        (None, "`what` must be one of"),
        (1.0, "`what` must be one of"),
        ("blocks:4", "cannot freeze 'blocks:4': the model has 3 blocks"),
        (4, "the model has 3"),
        (-1, "the model has 3"),
    ],
)
def test_bad_words(vit, what, message):
    with pytest.raises(ValueError, match=message):
        freeze(vit, what)


def test_models_without_head_or_blocks_or_with_adapters():
    headless = tiny_vit(num_layers=1, num_classes=0)
    with pytest.raises(ValueError, match="no head to train"):
        freeze(headless, "backbone")
    with pytest.raises(ValueError, match="no encoder blocks"):
        freeze(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), "none")
    add_lora(headless, 2)
    with pytest.raises(ValueError, match="call `merge_lora` first"):
        freeze(headless, "none")
