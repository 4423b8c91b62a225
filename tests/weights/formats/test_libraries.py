"""Files that other libraries write: each loads strictly, and gives what its library computes.

The recorded cases (`python -m support.libraries`) need none of the libraries; `pytest -m parity` has them
write their files with other weights.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.agreement import assert_agree
from support.library_cases import build_case, case_images, library_cases, write_case
from support.marks import mostly_slow
from support.paths import FIXTURES

from vit_tf import get_preprocessing, load_weights
from vit_tf.weights import open_weights

RECORDED = json.loads((FIXTURES / "libraries.json").read_text())
PACKAGES = dict.fromkeys(("open_clip", "open_clip_folder", "openai"), "open_clip") | {
    "keras_hub": "keras_hub"
}
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


@pytest.mark.parity
@pytest.mark.parametrize("case", library_cases(), ids=lambda case: case["id"])
def test_live(case, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip(PACKAGES.get(case["library"], "timm"))
    from support import libraries, makers

    if case["library"] == "makers" and not makers.FOLDER:
        pytest.skip("no MAKERS_CODE: see tests/support/makers.py")
    case, expected = libraries.reference(case, tmp_path, seed=1)
    source = tmp_path / case["file"] if "file" in case else tmp_path
    assert_agree(build_case(case, source)(case_images(case, seed=1)), expected)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["OpenCLIP", "OpenCLIP of the mean"])
def test_open_clip_prepares_images_as_we_do(name, tmp_path):
    theirs = pytest.importorskip("open_clip.transform")
    from PIL import Image
    from support import libraries

    case = next(case for case in library_cases() if case["id"] == name)
    libraries.reference(case, tmp_path)
    size = case["image_size"][0]
    transform = theirs.image_transform_v2(theirs.PreprocessCfg(size=size, **case["images"]), False)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8))
    expected = transform(image).numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(get_preprocessing(tmp_path)(image)[0], expected, atol=1e-6)


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
