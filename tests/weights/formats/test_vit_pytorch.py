import numpy as np
import pytest
from conftest import randomize
from keras import ops
from safetensors.numpy import save_file
from support.saved_models import images

from vit_tf import build_vit

pytestmark = pytest.mark.every_backend


@pytest.mark.tensorflow_only
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "overrides",
    [
        dict(patch_size=(8, 32), image_size=(16, 64)),
        dict(patch_size=(8, 16), image_size=32),
        dict(patch_size=8, in_channels=12, image_size=16),
        dict(patch_size=32, in_channels=1, image_size=64),
    ],
)
def test_vit_pytorch_patches_of_all_sides(overrides, tmp_path):
    sizes = dict(hidden_dim=24, num_layers=1, num_heads=2, mlp_dim=16, head_dim=8, num_classes=3)
    model = randomize(build_vit("vit_pytorch", **sizes, **overrides))
    ours = {v.path: ops.convert_to_numpy(v) for v in model.weights}
    names = {
        "patch_norm": "to_patch_embedding.1",
        "patch_embedding": "to_patch_embedding.2",
        "embedding_norm": "to_patch_embedding.3",
        "block_0/attention_norm": "transformer.layers.0.0.norm",
        "block_0/attention/qkv": "transformer.layers.0.0.to_qkv",
        "block_0/attention/projection": "transformer.layers.0.0.to_out.0",
        "block_0/mlp_norm": "transformer.layers.0.1.net.0",
        "block_0/mlp/fc1": "transformer.layers.0.1.net.1",
        "block_0/mlp/fc2": "transformer.layers.0.1.net.4",
        "norm": "transformer.norm",
        "head": "mlp_head",
    }
    endings = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    arrays = {
        "cls_token": ours.pop("patch_encoder/class_token")[0],
        "pos_embedding": ours.pop("patch_encoder/position_embedding")[0],
    }
    for path, array in ours.items():
        module, _, ending = path.rpartition("/")
        arrays[f"{names[module]}.{endings[ending]}"] = np.ascontiguousarray(array.T)
    save_file(arrays, tmp_path / "lucidrains.safetensors")
    again = build_vit("vit_pytorch", weights=tmp_path / "lucidrains.safetensors", **sizes, **overrides)
    np.testing.assert_allclose(again(images(model)), model(images(model)), atol=1e-6)
