import re
from dataclasses import FrozenInstanceError, fields

import keras
import pytest

from vit_tf import build_vit, list_models
from vit_tf.variants import ALIASES, VARIANTS, Variant, get_variant

# With the variant's own number of classes. timm's counts where timm has the model.
PARAMETERS = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_tiny_patch16_384": 5_790_376,
    "vit_small_patch32_224": 22_878_952,
    "vit_small_patch32_384": 22_915_432,
    "vit_small_patch16_224": 22_050_664,
    "vit_small_patch16_384": 22_196_584,
    "vit_base_patch32_224": 88_224_232,
    "vit_base_patch32_384": 88_297_192,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch16_384": 86_859_496,
    "vit_large_patch32_224": 306_535_400,
    "vit_large_patch32_384": 306_632_680,
    "vit_large_patch16_224": 304_326_632,
    "vit_large_patch16_384": 304_715_752,
    "vit_large_patch14_224": 304_203_752,
    "vit_huge_patch14_224": 632_045_800,
    "vit_cifar10_tutorial": 284_874,
    "vit_cifar10": 615_306,
}


def test_every_variant_has_a_pinned_parameter_count():
    assert sorted(PARAMETERS) == sorted(VARIANTS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    with keras.StatelessScope(initialize_variables=False):  # variables keep their shapes and take no memory
        assert build_vit(name).count_params() == PARAMETERS[name]


def test_names_say_patch_and_image_size():
    for name, variant in VARIANTS.items():
        if match := re.search(r"patch(\d+)_(\d+)$", name):
            patch, image = map(int, match.groups())
            assert variant.patch_size == (patch, patch) and variant.image_size == (image, image)


def test_aliases_are_the_papers_models():
    assert set(ALIASES.values()) <= set(VARIANTS)
    assert not set(ALIASES) & set(VARIANTS)
    assert get_variant("vit_b16") == VARIANTS["vit_base_patch16_224"]
    assert get_variant("vit_ti16") == VARIANTS["vit_tiny_patch16_224"]


def test_list_models():
    assert list_models() == sorted(VARIANTS)
    assert list_models("vit_*_384") == [n for n in sorted(VARIANTS) if n.endswith("_384")]
    assert list_models("vit_b??") == ["vit_b16", "vit_b32"]
    assert list_models("resnet*") == []


def test_overrides_are_fields():
    variant = get_variant("vit_b16", num_layers=3, image_size=(224, 448))
    assert (variant.num_layers, variant.image_size) == (3, (224, 448))
    assert VARIANTS["vit_base_patch16_224"].num_layers == 12
    with pytest.raises(FrozenInstanceError):
        variant.num_layers = 4


def test_build_vit_takes_every_field_as_an_override():
    variant = VARIANTS["vit_cifar10_tutorial"]
    values = {field.name: getattr(variant, field.name) for field in fields(Variant)}
    with keras.StatelessScope(initialize_variables=False):
        assert build_vit("vit_b16", **values).count_params() == 284_874


@pytest.mark.parametrize("name", ["", None, "vit-b16", "VIT_B16"])
def test_unknown_variant(name):
    with pytest.raises(ValueError, match="the variants are vit_base_patch16_224, "):
        get_variant(name)


def test_unknown_hyperparameter_lists_those_there_are():
    with pytest.raises(ValueError, match="did you mean 'mlp_dim'.*hidden_dim, num_layers"):
        get_variant("vit_b16", mpl_dim=3)
