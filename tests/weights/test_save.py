import pytest

from vit_tf import save_weights

pytestmark = pytest.mark.every_backend


def test_save_weights_refuses_what_it_cannot_write(saved, tmp_path):
    model, _, _ = saved
    for target, options, message in (
        ("a.npz", {}, "must end in .safetensors"),
        ("nowhere/a.safetensors", {}, "no folder"),
    ):
        with pytest.raises(ValueError, match=message):
            save_weights(model, tmp_path / target, **options)
    assert not (tmp_path / "a.safetensors").exists()


def test_save_weights_on_a_full_disk(saved, tmp_path, monkeypatch):
    import safetensors
    import safetensors.numpy

    def full(*args, **kwargs):
        raise safetensors.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    before = set(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space left"):
        save_weights(saved[0], tmp_path / "new.safetensors")
    assert set(tmp_path.iterdir()) == before
