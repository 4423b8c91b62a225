import numpy as np
import pytest
from support.memory_errors import RAISED, TINY

from vit_tf import data, memory, training
from vit_tf.flops import training_bytes
from vit_tf.training import Recipe


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_a_run_out_of_memory_says_what_a_step_needs(error, tmp_path, monkeypatch, capsys):
    recipe = Recipe(epochs=1, batch_size=8, crop="none")
    batches = data.DataLoader(np.zeros((16, 16, 16, 3), "uint8"), np.arange(16) % 3, 3, 8)
    model = training.make_model("vit_cifar10", TINY, recipe)
    trainer = training.make_trainer(model, recipe, batches, batches, (16, 16), tmp_path)

    def step(*_, **__):
        raise error

    monkeypatch.setattr(trainer.engine.training_model, "train_on_batch", step)
    monkeypatch.setattr("vit_tf.training.memory_limit.total_memory", lambda: 1000)
    needed = memory.gigabytes(training_bytes(model, 8))
    expected = rf"out of memory at step 0 \(.*\): a training step of 8 images needs about {needed} of"
    with pytest.raises(memory.OutOfMemory, match=expected):
        training.run_training(trainer, tmp_path)
    assert f"note: a training step of 8 images needs about {needed} of memory" in capsys.readouterr().out


@pytest.mark.parametrize("remat", [False, True])
def test_a_step_that_takes_far_too_much_is_refused(remat, tmp_path, monkeypatch):
    recipe = Recipe(epochs=1, batch_size=8, crop="none", remat=remat)
    batches = data.DataLoader(np.zeros((16, 16, 16, 3), "uint8"), np.arange(16) % 3, 3, 8)
    model = training.make_model("vit_cifar10", TINY, recipe)
    monkeypatch.setattr("vit_tf.training.memory_limit.total_memory", lambda: 1000)
    arguments = model, recipe, batches, batches, (16, 16), tmp_path
    if remat:  # nobody knows what it takes
        assert training.make_trainer(*arguments)
        return
    with pytest.raises(memory.OutOfMemory, match="step of 8 images needs about .* this machine has"):
        training.make_trainer(*arguments)
