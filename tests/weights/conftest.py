import pytest
from safetensors.numpy import load_file
from support.saved_models import small_vit

from vit_tf import save_weights


@pytest.fixture
def saved(tmp_path):
    """A model, its file in timm's names, and the file's arrays."""
    model = small_vit()
    path = save_weights(model, tmp_path / "model.safetensors")
    return model, path, load_file(path)
