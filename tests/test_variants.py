import json
import re
from dataclasses import FrozenInstanceError, fields

import keras
import pytest
from support.marks import mostly_slow
from support.paths import FIXTURES, ROOT

from vit_tf import build_vit, list_models
from vit_tf.commands.list import markdown_table, model_rows
from vit_tf.config import ViTConfig
from vit_tf.variants import ALIASES, FAMILIES, VARIANTS, family, get_variant

# timm's own counts, at the variant's number of classes: `tests/support/make_fixtures.py` writes them.
PARAMETERS = json.loads((FIXTURES / "parameters.json").read_text())
PARAMETERS |= {"vit_pytorch": 54_630_376, "vit_cifar10_tutorial": 284_874, "vit_cifar10": 1_416_451}
PARAMETERS |= {"vit_cifar10_hybrid": 1_944_163}


def test_every_variant_has_a_pinned_parameter_count():
    assert sorted(PARAMETERS) == sorted(VARIANTS)


TABLE = (ROOT / "docs" / "models.md").read_text().split("\n\n")[-1]


@pytest.mark.parametrize("label", mostly_slow({label: label for label in FAMILIES}, list(FAMILIES)[-1:]))
def test_parameter_counts_and_rows_of_the_model_table(label):
    names = [name for name in PARAMETERS if family(name) == label]
    assert names
    for name, row in zip(names, model_rows(names)):
        assert row[2] == f"{PARAMETERS[name]:,}", name
        assert markdown_table([row]).splitlines()[-1] in TABLE.splitlines(), (
            f"docs/models.md is stale ({name}): its table is the output of `vit-tf list --markdown`"
        )


def test_model_table_is_whole_and_in_order():
    first, *rest = TABLE.strip().splitlines()
    assert first == markdown_table([]).splitlines()[0]
    assert [line.split(" | ")[0].removeprefix("| ") for line in rest[1:]] == list(VARIANTS)


def test_each_variant_is_in_one_family():
    assert sum(map(len, FAMILIES.values())) == len(VARIANTS)
    assert all(name in FAMILIES[family(name)] for name in VARIANTS)
    assert family("vit_b16x") is None


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
    wanted = [n for n in sorted(VARIANTS) if n.startswith("vit_") and n.endswith("_384")]
    assert list_models("vit_*_384") == wanted
    assert len(list_models("*dinov2*")) == 8
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
    values = {field.name: getattr(variant, field.name) for field in fields(ViTConfig)}
    with keras.StatelessScope(initialize_variables=False):
        assert build_vit("vit_b16", **values).count_params() == 284_874


@pytest.mark.parametrize("name", ["", None, "vit-b16", "VIT_B16"])
def test_unknown_variant(name):
    with pytest.raises(ValueError, match=f"lists the {len(VARIANTS)} names"):
        get_variant(name)


def test_unknown_hyperparameter_lists_those_there_are():
    with pytest.raises(ValueError, match="did you mean 'mlp_dim'.*hidden_dim, num_layers"):
        get_variant("vit_b16", mpl_dim=3)
