import pytest
from support.saved_models import assert_refused, small_vit

from vit_tf import load_weights

pytestmark = pytest.mark.every_backend


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_keras_files_fit_whole_or_not_at_all(tmp_path):
    model = small_vit()
    for name, overrides in (
        ("deeper", dict(num_layers=3)),
        ("wider", dict(num_classes=7)),
        ("bare", dict(num_classes=0)),
    ):
        small_vit(**overrides).save_weights(tmp_path / f"{name}.weights.h5")
        assert_refused(model, tmp_path / f"{name}.weights.h5", "do not fit", "of shape")
    model.save_weights(tmp_path / "good.weights.h5")
    assert_refused(model, tmp_path / "good.weights.h5", "without other options", strict=False)
    assert load_weights(model, tmp_path / "good.weights.h5").format == "keras"
