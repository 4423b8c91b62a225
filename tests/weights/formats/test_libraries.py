"""Files that other libraries write: each loads strictly, and gives what its library computes.

The recorded cases (`python -m support.libraries`) need none of the libraries; `pytest -m parity` has them
write their files with other weights.
"""

import json

import numpy as np
import pytest
from conftest import randomize
from safetensors.numpy import load_file, save_file
from support.agreement import assert_agree
from support.library_cases import build_case, case_images, library_cases, write_case
from support.marks import mostly_slow
from support.paths import FIXTURES

from vit_tf import build_vit, load_weights, save_weights
from vit_tf.weights import open_weights

RECORDED = json.loads((FIXTURES / "libraries.json").read_text())
FAST = ("CLIPModel", "SiglipVisionModel", "IJepaModel of modules")


def test_every_case_is_recorded():
    assert [case["id"] for case in RECORDED] == [case["id"] for case in library_cases()]


@pytest.mark.parametrize("case", mostly_slow({case["id"]: case for case in RECORDED}, FAST))
def test_recorded(case, tmp_path):
    model = build_case(case, write_case(case, tmp_path))
    assert_agree(model(case_images(case)), case["expected"])


def test_the_report_says_what_is_not_used(tmp_path):
    case = next(case for case in RECORDED if case["id"] == "CLIPModel")
    source = write_case(case, tmp_path)
    report = load_weights(build_case(case, source), source)
    assert report.format == "huggingface_vision" and not report.errors and not report.new_head
    others = {n for n in case["shapes"] if not n.startswith(("vision_model.", "visual_projection."))}
    assert {*report.unused, *report.left} == others and "text_model." in str(report)


def test_a_text_tower_alone(tmp_path):
    arrays = {"text_model.embeddings.token_embedding.weight": np.ones((3, 2), "float32")}
    save_file(arrays, tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match=r"text.safetensors' holds a text tower and no vision tower: give"):
        open_weights(tmp_path / "text.safetensors")


def test_a_resnet_beside_a_text_tower(tmp_path):
    names = ("visual.layer1.0.conv1.weight", "token_embedding.weight")
    save_file({name: np.ones((3, 2), "float32") for name in names}, tmp_path / "RN50.safetensors")
    with pytest.raises(ValueError, match=r"RN50.safetensors' holds a ResNet, expected a ViT$"):
        open_weights(tmp_path / "RN50.safetensors")


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3_qkvb", "vit_small_plus_patch16_dinov3_qkvb"])
def test_dinov3_of_its_makers(name, tmp_path):
    """The names of the makers' files, whose bias of the keys is masked, give back the weights."""
    sizes = dict(image_size=32, hidden_dim=48, num_layers=1, num_heads=3, mlp_dim=80)
    model = randomize(build_vit(name, **sizes))
    theirs = {"rope_embed.periods": np.ones(4, "float32"), "mask_token": np.ones((1, 48), "float32")}
    for key, array in load_file(save_weights(model, tmp_path / "timm.safetensors")).items():
        for ours, new in (
            ("reg_token", "storage_tokens"),
            ("gamma_1", "ls1.gamma"),
            ("gamma_2", "ls2.gamma"),
        ):
            key = key.replace(ours, new)
        for ours, new in (("fc1_g", "w1"), ("fc1_x", "w2")):
            key = key.replace(ours, new)
        theirs[key.replace("fc2", "w3") if "plus" in name else key] = array
    query, value = (theirs.pop(f"blocks.0.attn.{part}_bias") for part in "qv")
    theirs["blocks.0.attn.qkv.bias"] = np.concatenate([query, query + 1, value])
    theirs["blocks.0.attn.qkv.bias_mask"] = np.repeat([1, 0, 1], 48).astype("float32")
    save_file(theirs, tmp_path / "makers.safetensors")
    again = build_vit(name, **sizes)
    report = load_weights(again, tmp_path / "makers.safetensors")
    assert report.format == "dinov3" and not report.errors
    for old, new in zip(model.weights, again.weights):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parity
@pytest.mark.parametrize("case", library_cases(), ids=lambda case: case["id"])
def test_live(case, tmp_path):
    pytest.importorskip("torch")
    from support import libraries

    case, expected = libraries.reference(case, tmp_path, seed=1)
    source = tmp_path / case["file"] if "file" in case else tmp_path
    assert_agree(build_case(case, source)(case_images(case, seed=1)), expected)


@pytest.mark.parity
@pytest.mark.parametrize("side", [80, 32])
def test_torchvision_resamples_positions_as_we_do(side, tmp_path):
    models = pytest.importorskip("torchvision.models")
    import torch
    from support import libraries

    case = next(case for case in library_cases() if case["id"] == "torchvision")
    case, _ = libraries.reference(case, tmp_path, seed=1)
    state = torch.load(tmp_path / case["file"])
    state = models.vision_transformer.interpolate_embeddings(side, 16, state, reset_heads=False)
    model = models.VisionTransformer(**case["reference"] | dict(image_size=side)).eval()
    model.load_state_dict(state)
    case = case | dict(image_size=[side, side], overrides=case["overrides"] | dict(image_size=side))
    with torch.no_grad():
        expected = model(libraries.torch_images(case, 1)).numpy()
    assert_agree(build_case(case, tmp_path / case["file"])(case_images(case, 1)), expected)
