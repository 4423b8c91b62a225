"""The preprocessing of a checkpoint is found by its name or configuration."""

import json

import numpy as np
import pytest
from support.paths import ROOT
from support.photos import MEAN, STD, photo, run_python

from vit_tf import variants
from vit_tf.preprocessing import Preprocessing, get_preprocessing, resolve, timm_table

CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(
    "name, expected",
    [
        ("vit_base_patch16_224", Preprocessing(224)),
        ("vit_b16", Preprocessing(224)),
        ("vit_b16.dino", Preprocessing(224, **IMAGENET)),
        ("vit_base_patch16_224_dino", Preprocessing(224, **IMAGENET)),  # timm's older name
        ("vit_base_patch16_224.augreg_in21k", Preprocessing(224)),
        ("vit_base_patch16_384", Preprocessing(384, crop_fraction=1.0)),
        ("vit_base_patch16_clip_224.openai", Preprocessing(224, **CLIP)),
        ("deit_base_patch16_224", Preprocessing(224, **IMAGENET)),
        ("vit_base_patch16_224_miil", Preprocessing(224, "bilinear", 0.875, mean=(0,) * 3, std=(1,) * 3)),
        (
            "vit_so400m_patch14_siglip_378.webli_ft_in1k",
            Preprocessing(378, crop_fraction=1.0, crop_mode="squash"),
        ),
        ("vit_cifar10", Preprocessing(32, crop_fraction=1.0)),
        ("cifar10", Preprocessing(32, crop_fraction=1.0)),  # the packaged model
    ],
)
def test_names(name, expected):
    assert get_preprocessing(name) == expected
    other = get_preprocessing(name, image_size=(96, 64))
    assert other.image_size == (96, 64) and other.crop_fraction == expected.crop_fraction


def test_every_name_has_a_preprocessing():
    table = timm_table()
    names = [*table["renamed"], *variants.VARIANTS, *variants.ALIASES]
    for architecture, tags in table["architectures"].items():
        assert get_preprocessing(architecture) == get_preprocessing(f"{architecture}.{next(iter(tags))}")
        names += [f"{architecture}.{tag}" for tag in tags]
    assert len(names) > 400
    for name in names:
        get_preprocessing(name)


@pytest.mark.parametrize(
    "source, message",
    [
        (
            "vit_base_patch16_244",
            "unknown name 'vit_base_patch16_244' .did you mean 'vit_base_patch16_224'",
        ),
        ("vit_base_patch16_224.augreg_in22k", "unknown tag 'augreg_in22k' .* its tags are .*augreg_in21k"),
        ("vit_cifar10.tag", "unknown name 'vit_cifar10.tag'"),
        ("timm/vit_base_patch16_224.dino", "unknown name .* must be hf:owner/name"),
        ("resnet50", r"unknown name 'resnet50'"),
        ("", "unknown name ''"),
        (None, "`source` must be a name, a folder or a dict, got None"),
        (b"vit_b16", "`source` must be a name"),
        ({}, "expected timm's config.json, .*: got nothing"),
        ({"hidden_size": 768, "model_type": "bert"}, ": got hidden_size, model_type"),
    ],
)
def test_bad_sources(source, message):
    with pytest.raises(ValueError, match=message):
        get_preprocessing(source)


TIMM_CONFIG = {
    "input_size": [3, 240, 320],
    "crop_pct": 0.95,
    "interpolation": "bilinear",
    "mean": list(MEAN),
    "std": list(STD),
    "crop_mode": "squash",
    "fixed_input_size": True,
}
TIMM_SETTINGS = Preprocessing((240, 320), "bilinear", 0.95, "squash", MEAN, STD)


def test_config_of_timm():
    new = {"architecture": "vit_base_patch16_224", "num_classes": 10, "pretrained_cfg": TIMM_CONFIG}
    assert get_preprocessing(new) == get_preprocessing(TIMM_CONFIG) == TIMM_SETTINGS
    assert get_preprocessing(new, image_size=64).image_size == (64, 64)
    assert get_preprocessing({**new, "model_args": {"img_size": 96}}).image_size == (96, 96)
    flexible = {**TIMM_CONFIG, "fixed_input_size": False}
    new = {"pretrained_cfg": flexible, "model_args": {"img_size": 96, "in_chans": 3}}
    assert get_preprocessing(new) == TIMM_SETTINGS
    nulls = {name: None for name in TIMM_CONFIG}
    assert get_preprocessing({"pretrained_cfg": nulls | {"url": ""}}) == Preprocessing(
        224, crop_fraction=0.875, **IMAGENET
    )
    for grey in (
        {"input_size": [1, 224, 224]},
        {"pretrained_cfg": {"url": ""}, "model_args": {"in_chans": 1}},
    ):
        with pytest.raises(ValueError, match="channels, expected 3"):
            get_preprocessing(grey)


HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize(
    "config, expected",
    [
        (  # google/vit-base-patch16-224
            {
                "size": {"height": 224, "width": 200},
                "resample": 2,
                "do_rescale": True,
                "rescale_factor": 1 / 255,
            },
            Preprocessing((224, 200), "bilinear", 1.0, "squash"),
        ),
        (
            {"size": 224, "feature_extractor_type": "ViTFeatureExtractor", "crop_size": None},
            Preprocessing(224, "bilinear", 1.0, "squash"),
        ),
        (  # openai/clip-vit-base-patch16
            {
                "size": 224,
                "crop_size": 224,
                "do_center_crop": True,
                "feature_extractor_type": "CLIP",
                "resample": 3,
            },
            Preprocessing(224, "bicubic", 1.0, "center"),
        ),
        (  # facebook/dinov2-base
            {
                "size": {"shortest_edge": 256},
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
            },
            Preprocessing(224, "bicubic", 0.875, "center"),
        ),
        (  # facebook/deit-base-patch16-224
            {
                "size": 256,
                "crop_size": 224,
                "do_center_crop": True,
                "feature_extractor_type": "DeiTFeatureExtractor",
            },
            Preprocessing(224, "bicubic", 0.875, "squash"),
        ),
        ({"size": 96, "crop_size": 80, "resample": 1}, Preprocessing(96, "lanczos", 1.0, "squash")),
        (
            {"size": 96, "do_normalize": False},
            Preprocessing(96, crop_fraction=1.0, crop_mode="squash", mean=(0,) * 3, std=(1,) * 3),
        ),
    ],
)
def test_config_of_transformers(config, expected):
    assert get_preprocessing({**HALF, **config}) == expected


def test_rescale_factors_of_transformers():
    image = photo(32, 32)
    config = {"size": 32, "image_mean": [0.3] * 3, "image_std": [0.6] * 3}
    for change, factor in (({"rescale_factor": 1 / 127.5}, 1 / 127.5), ({"do_rescale": False}, 1)):
        result = get_preprocessing({**config, **change})(image)
        np.testing.assert_allclose(result[0], (image * factor - 0.3) / 0.6, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_crops_of_transformers_keep_their_sizes():
    for size in range(30, 300, 7):
        for crop in range(20, size):
            config = {"size": {"shortest_edge": size}, "crop_size": crop, "do_center_crop": True, **HALF}
            assert get_preprocessing(config).resized_size(1000, 1000) == (size, size)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"size": {"shortest_edge": 224}}, "to a single size, got .*shortest_edge"),
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, "to a single size"),
        ({"size": {"longest_edge": 1333}}, "to a single size"),
        ({"size": "224"}, "to a single size"),
        ({"crop_size": 224}, "to a single size"),
        ({"size": 224, "do_resize": False}, "to a single size, got .*do_resize"),
        ({"size": 224, "crop_pct": 0.875}, "to a single size, got .*crop_pct"),
        ({"size": 224, "resample": 6}, "to a single size, got .*'resample': 6"),
        (
            {
                "size": {"shortest_edge": 224},
                "do_center_crop": True,
                "crop_size": {"height": 200, "width": 224},
            },
            "to a single size",
        ),
        (
            {
                "size": {"height": 224, "width": 224},
                "do_center_crop": True,
                "crop_size": {"height": 9, "width": 8},
            },
            "to a single size",
        ),
        ({"size": 224, "do_center_crop": True, "crop_size": 256}, "`crop_fraction`"),
        ({"size": 224, "image_mean": None}, "lacks `image_mean` or `image_std`"),
    ],
)
def test_bad_configs_of_transformers(config, message):
    with pytest.raises(ValueError, match=message):
        get_preprocessing({**HALF, **config})


def test_folders_and_the_hub(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": TIMM_CONFIG}))
    assert get_preprocessing(tmp_path) == get_preprocessing(str(tmp_path)) == TIMM_SETTINGS
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 768, "image_size": 224}))
    with pytest.raises(ValueError, match="got hidden_size, image_size"):
        get_preprocessing(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 96, **HALF}))
    assert get_preprocessing(tmp_path) == Preprocessing(96, crop_fraction=1.0, crop_mode="squash")
    with pytest.raises(ValueError):
        get_preprocessing(tmp_path / "nothing")
    seen = []

    def read(source):
        seen.append(source)
        return TIMM_CONFIG, {}

    monkeypatch.setattr(resolve, "read_source_config", read)
    assert get_preprocessing("hf:timm/vit_x", image_size=64).image_size == (64, 64)
    assert seen == ["hf:timm/vit_x"]


def test_a_name_comes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vit_b16").mkdir()
    assert get_preprocessing("vit_b16") == Preprocessing(224)


@pytest.mark.parity
def test_tables_are_those_of_timm(tmp_path):
    run_python(ROOT / "tools" / "make_timm_tables.py", tmp_path)
    made = json.loads((tmp_path / "timm_checkpoints.json").read_text("utf-8"))
    if made["timm"] != timm_table()["timm"]:
        pytest.skip(f"timm {made['timm']} is another than that of the table")
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (ROOT / "vit_tf" / "assets" / path.name).read_bytes()


def test_transformers_models_without_a_preprocessor_get_its_defaults():
    vit = get_preprocessing({"model_type": "vit", "image_size": [64, 96]})
    assert (vit.image_size, vit.mean, vit.std) == ((64, 96), (0.5,) * 3, (0.5,) * 3)
    assert (vit.interpolation, vit.crop_mode) == ("bilinear", "squash")
    dino = get_preprocessing({"model_type": "dinov2", "image_size": 224})
    assert dino.mean == (0.485, 0.456, 0.406) and dino.resized_size(500, 500) == (256, 256)
    assert get_preprocessing({"model_type": "deit", "image_size": [32, 64]}).image_size == (32, 64)
    clip = get_preprocessing({"model_type": "clip", "vision_config": {"image_size": 336}})
    assert clip.mean[0] == 0.48145466 and clip.resized_size(500, 700) == (336, 470)
    siglip = get_preprocessing({"model_type": "siglip2", "vision_config": {"num_patches": 256}})
    assert (siglip.image_size, siglip.mean, siglip.crop_mode) == ((256, 256), (0.5,) * 3, "squash")
