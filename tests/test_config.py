from dataclasses import fields, replace

import pytest

from vit_tf.config import AttentionConfig, BlockConfig, ViTConfig
from vit_tf.config_checks import CHOICES

SMALL = ViTConfig(32, 16, 24, 2, 3, 48)


def test_sizes_become_pairs():
    config = replace(SMALL, image_size=(32, 64), patch_size=[8, 16])
    assert (config.image_size, config.patch_size, config.grid_size) == ((32, 64), (8, 16), (4, 4))
    assert replace(SMALL, image_size=(35, 50), allow_remainder=True).grid_size == (2, 3)


def test_the_class_token_is_there_where_the_pooling_reads_it():
    assert SMALL.has_class_token and replace(SMALL, pooling="token_avg").has_class_token
    for pooling in ("avg", "max", "avgmax", "map"):
        assert not replace(SMALL, pooling=pooling).has_class_token
        assert replace(SMALL, pooling=pooling, class_token=True).has_class_token
    assert replace(SMALL, distillation_token=True, num_registers=3).num_prefix_tokens == 5


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_listed_and_the_nearest_is_named(name):
    choice = CHOICES[name][-1]
    with pytest.raises(
        ValueError, match=f"`{name}` must be one of '{CHOICES[name][0]}'.*did you mean '{choice}'"
    ):
        replace(SMALL, **{name: choice + "x"})


@pytest.mark.parametrize(
    "field, value",
    [
        *((field.name, "yes") for field in fields(ViTConfig) if isinstance(field.default, bool)),
        *((field.name, 1.0) for field in fields(ViTConfig) if field.name.endswith("_rate")),
        *(
            (name, 0)
            for name in ("hidden_dim", "num_layers", "num_heads", "mlp_dim", "in_channels", "head_dim")
        ),
        ("hidden_dim", 24.0),
        ("num_layers", True),
        ("num_classes", -1),
        ("num_registers", -1),
        ("num_registers", 1.5),
        ("class_token", 1),
        ("layer_scale_init", 0),
        ("norm_epsilon", 0),
        ("image_size", "32"),
        ("patch_size", (0, 8)),
    ],
)
def test_values_out_of_range(field, value):
    with pytest.raises(ValueError, match=f"`{field}` must be"):
        replace(SMALL, **{field: value})


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(image_size=40), "multiple of 16"),
        (dict(num_heads=5), "num_heads=5 does not divide hidden_dim=24"),
        (dict(num_heads=5, head_dim=4, pooling="map"), "num_heads=5 does not divide"),
        (dict(class_token=False), "pooling='token' reads the class token"),
        (dict(pooling="avg", distillation_token=True), "goes with a class token and pooling='token'"),
        (dict(patch_norm=True), "patch_stem='patches', got 'conv'"),
        (dict(allow_remainder=True, patch_stem="overlap"), "'conv' or 'mobileclip', got 'overlap'"),
        (dict(block="parallel_scaling", mlp="swiglu"), "mlp='mlp' and sub_norm=False only"),
        (dict(block="parallel_scaling", sub_norm=True), "mlp='mlp' and sub_norm=False only"),
        (dict(block="parallel_scaling", qkv_bias="qv"), "True or False only"),
        (dict(num_kv_heads=2), "num_kv_heads=2 does not divide num_heads=3"),
        (dict(pooling="map", pool_heads=7), "pool_heads=7 does not divide"),
        (dict(attention="differential", num_kv_heads=1), "give `num_heads`"),
        (dict(rotary=dict(kind="mixed"), num_kv_heads=1), "kind='mixed'"),
        (dict(rotary=dict(kind="dinov3", offset=1.0)), "kind='axial'"),
    ],
)
def test_values_that_do_not_fit_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **options)


def test_options_of_blocks_are_hyperparameters():
    ours, blocks = ({f.name: f for f in fields(x)} for x in (ViTConfig, BlockConfig))
    assert set(blocks) - set(ours) == {"block_index", "grid_size", "num_prefix_tokens"}
    shared = {name: f for name, f in blocks.items() if name in ours}
    assert all(ours[name].type == f.type for name, f in shared.items())
    assert all(ours[name].default == f.default for name, f in shared.items())


def test_options_of_each_block():
    config = replace(SMALL, num_layers=3, drop_path_rate=0.2, qk_norm=True, norm="rms")
    first, _, last = (config.block_config(i) for i in range(3))
    assert (first.num_heads, first.mlp_dim, first.qk_norm, first.norm) == (3, 48, True, "rms")
    assert (first.block_index, first.drop_path_rate) == (0, 0)
    assert (last.block_index, last.drop_path_rate) == (2, 0.2)
    assert replace(SMALL, num_layers=1, drop_path_rate=0.2).block_config(0).drop_path_rate == 0


@pytest.mark.parametrize("name, value", [("num_heads", 0), ("block_index", -1), ("norm", "batch")])
def test_values_of_attention_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        AttentionConfig(**{"num_heads": 2, name: value})
