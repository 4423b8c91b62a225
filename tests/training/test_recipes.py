import argparse
from dataclasses import asdict, fields

import pytest

from vit_tf.commands.recipe_options import add_settings, given_settings
from vit_tf.training import RECIPES, Recipe, get_recipe
from vit_tf.training.lora import PROJECTIONS
from vit_tf.training.presets import PRESETS, TRAINING, get_preset
from vit_tf.training.recipes import LORA_TARGETS, override, read_recipe


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_settings(parser)
    return given_settings(parser.parse_args(arguments))


def test_there_is_a_recipe_a_purpose():
    assert list(RECIPES) == ["linear-probe", "full", "lora", "small-data"]
    recipe = get_recipe("full", learning_rate=3e-4)
    assert recipe.learning_rate == 3e-4 and recipe.layer_decay == RECIPES["full"].layer_decay
    assert RECIPES["full"].learning_rate != 3e-4


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(epochs=0), "`epochs` must be a positive int or None, got 0"),
        (dict(epochs=2.5), "`epochs` must be a positive int or None"),
        (dict(batch_size=None), "`batch_size` must be a positive int, got None"),
        (dict(learning_rate=float("nan")), "`learning_rate` must be a positive number"),
        (dict(minutes=float("inf")), "`minutes` must be"),
        (dict(optimizer="adam"), "one of 'adamw', 'sgd', 'muon', got 'adam' .did you mean 'adamw'"),
        (dict(schedule=1), "`schedule` must be one of"),
        (dict(ema=1), "`ema` must be a number in \\(0, 1\\) or None"),
        (dict(layer_decay=1.5), "`layer_decay` must be a number in \\(0, 1\\]"),
        (dict(random_erasing=2), r"a number in \[0, 1\]"),
        (dict(randaugment=11), r"a number in \[0, 10\]"),
        (dict(label_smoothing=1), r"a number in \[0, 1\)"),
        (dict(flip_tta="yes"), "`flip_tta` must be true or false"),
        (dict(freeze=3), "`freeze` must be text"),
        (dict(freeze="blocks:x"), "`freeze` must be none, backbone, all-but-attention or blocks:K"),
        (dict(lora_targets="qkv,q"), "`lora_targets` must be some of qkv,projection,fc1,fc2, got 'qkv,q'"),
        (dict(lora_alpha=0), "`lora_alpha` must be a positive number"),
        (dict(seed=2**32), "an int from 0 to 4294967295"),
        (dict(seed=True), "`seed` must be an int from 0"),
        (dict(epochs=None, minutes=None), "needs an end"),
        (dict(lora_rank=4, keep_last=True), "`keep_last` does not work with LoRA"),
        (dict(lora_rank=4, freeze="backbone"), "LoRA freezes all weights but"),
        (dict(learningrate=1), "unknown setting 'learningrate' .did you mean 'learning_rate'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        get_recipe("full", **settings)


def test_presets_are_combined():
    """The later one counts; an addition alone comes with what it is added to."""
    default, long, adamw = (get_recipe(name) for name in ("default", "long", "adamw"))
    assert (long.optimizer, long.minutes, adamw.optimizer, adamw.minutes) == ("muon", 60, "adamw", 10)
    assert adamw.keep_last and adamw.crop == default.crop
    both = get_recipe("adamw,long", seed=3)
    assert (both.optimizer, both.minutes, both.random_erasing, both.seed) == ("adamw", 60, 0.5, 3)
    tutorial = get_recipe("tutorial,long")
    assert tutorial.minutes == 60 and tutorial.progressive_resizing == "none"
    assert get_recipe("small-data,lora").learning_rate == RECIPES["lora"].learning_rate
    assert get_preset("gpu,adamw").engine == "compiled-epoch" and get_preset("small-data").variant is None
    assert all(get_preset(name).variant for name in TRAINING)
    for name in PRESETS:
        get_recipe(name)


def test_lora_targets_are_those_of_add_lora():
    assert LORA_TARGETS == tuple(PROJECTIONS)


def test_a_recipe_of_another_version_is_refused():
    values = asdict(RECIPES["lora"])
    assert read_recipe(values) == RECIPES["lora"]
    with pytest.raises(ValueError, match="another version of vit_tf, which has other settings .colour, seed"):
        read_recipe({**{key: value for key, value in values.items() if key != "seed"}, "colour": 1})


def test_bad_recipe():
    with pytest.raises(ValueError, match="unknown preset or recipe 'lorra' .did you mean 'lora'"):
        get_recipe("lorra")


def test_every_setting_is_an_option_that_reads_its_own_value():
    for recipe in RECIPES.values():
        for item in fields(Recipe):
            value = getattr(recipe, item.name)
            option = f"--{item.name.replace('_', '-')}"
            if isinstance(value, bool):
                arguments = [option if value else option.replace("--", "--no-", 1)]
            else:
                arguments = [option, "none" if value is None else str(value)]
            assert parse(*arguments) == {item.name: value}


def test_what_is_not_given_is_not_there():
    assert parse() == {}
    assert parse("--seed", "0", "--patience", "none") == {"seed": 0, "patience": None}


def test_override():
    recipe = Recipe(epochs=40, minutes=20.0)
    assert override(recipe, {"seed": 3}) == Recipe(**{**asdict(recipe), "seed": 3})
    alone = override(recipe, {"minutes": 5.0})
    assert (alone.epochs, alone.minutes) == (None, 5.0)
    alone = override(recipe, {"epochs": 2})
    assert (alone.epochs, alone.minutes) == (2, None)
    with pytest.raises(ValueError, match="--learning-rate must be a positive number, got -1"):
        override(recipe, {"learning_rate": -1})


def test_bad_options(capsys):
    with pytest.raises(SystemExit):
        parse("--epochs", "many")
    assert "invalid int value: 'many'" in capsys.readouterr().err
