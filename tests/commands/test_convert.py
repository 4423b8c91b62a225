"""`vit-tf convert`."""

import keras
import numpy as np
import pytest
from support.command_line import printed

from vit_tf import build_vit


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("ending", [".safetensors", ".weights.h5", ".keras"])
def test_convert(capsys, hub, ending):
    model, folder = hub
    out = folder / f"out{ending}"
    output = printed(capsys, "convert", folder, out)
    assert f"wrote test_vit to {out}" in output and "80 tensors from" in output
    if ending == ".keras":
        again = keras.models.load_model(out)
    else:
        again = build_vit("test_vit", image_size=32, num_classes=4, weights=out)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(again(x), model(x), atol=1e-6)
    with pytest.raises(ValueError, match="already exists"):
        printed(capsys, "convert", folder, out)
    output = printed(capsys, "convert", folder, out, "--force", "--image-size", 48, "--num-classes", 2)
    assert "the head is new" in output and "resampled pos_embed: (2, 2) to (3, 3)" in output
    assert [path.name for path in folder.glob("partial*")] == []
