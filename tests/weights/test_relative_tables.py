"""Tables of relative positions for other grids."""

import numpy as np
import pytest
from conftest import randomize
from safetensors.numpy import load_file, save_file

from vit_tf import build_vit, load_weights, resize_model, save_weights
from vit_tf.weights.relative_tables import geometric_positions, resample_relative_table

SMALL = dict(hidden_dim=16, num_layers=2, num_heads=2, mlp_dim=32, num_classes=5, patch_size=8)
NAME = "blocks.0.attn.relative_position_bias_table"


def beit(**sizes):
    return randomize(build_vit("beit_base_patch16_224", **SMALL, **sizes))


def test_positions_grow_geometrically():
    positions = geometric_positions(7, 9)
    steps = np.diff(positions[3:])
    assert positions[3] == 0 and steps[0] == 1 and abs(positions[-1] - 4) < 1e-4
    np.testing.assert_allclose(steps[1:] / steps[:-1], steps[1] / steps[0])
    np.testing.assert_allclose(positions, -positions[::-1])
    assert list(geometric_positions(1, 5)) == [0]


def test_constant_tables_stay_constant_and_prefix_rows_are_kept():
    table = np.concatenate([np.full((5 * 7, 2), 3.0), np.arange(6.0).reshape(3, 2)])
    found = resample_relative_table(table, (3, 4), (5, 2))
    assert found.shape == (9 * 3 + 3, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found[:27], 3.0, rtol=1e-6)
    np.testing.assert_array_equal(found[27:], table[35:])


def test_loading_and_resizing_give_the_same_model(tmp_path):
    model = beit(image_size=(24, 32))
    path = save_weights(model, tmp_path / "model.safetensors")
    assert load_file(path)[NAME].shape == (5 * 7 + 3, 2)
    larger = beit(image_size=(40, 32))
    report = load_weights(larger, path)
    assert report.resampled == ["2 tables relative_position_bias_table: (3, 4) to (5, 4), as timm does"]
    resized = resize_model(model, image_size=(40, 32))
    with pytest.raises(ValueError, match="need a known grid"):
        resize_model(model, image_size=(None, None))
    x = np.random.default_rng(0).normal(size=(2, 40, 32, 3)).astype("float32")
    np.testing.assert_allclose(resized(x), larger(x), rtol=1e-5, atol=1e-5)
    save_file(load_file(path), path)  # without the grid in the metadata
    with pytest.raises(ValueError, match=r"table: \(38, 2\) in the source, \(66, 2\) here"):
        load_weights(larger, path)
    assert load_weights(larger, path, grid_size=(3, 4)).resampled == report.resampled
    square = save_weights(beit(image_size=24), tmp_path / "square.safetensors")
    save_file(load_file(square), square)
    assert "(3, 3) to (5, 4)" in load_weights(larger, square).resampled[0]


@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")  # in timm
@pytest.mark.parity
@pytest.mark.parametrize(
    "old, new", [((3, 3), (5, 7)), ((4, 6), (3, 9)), ((14, 14), (24, 24)), ((5, 5), (2, 2))]
)
def test_live_resampling(old, new):
    resize = pytest.importorskip("timm.layers.pos_embed_rel").resize_rel_pos_bias_table
    import torch

    rows = (2 * old[0] - 1) * (2 * old[1] - 1) + 3
    table = np.random.default_rng(0).normal(size=(rows, 4)).astype("float32")
    found = resample_relative_table(table, old, new)
    expected = resize(torch.tensor(table), new, found.shape, old_window_size=old).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
