"""The end of a run, and its rehearsal before the first step."""

import json
import random

import numpy as np
import pytest
from conftest import randomize
from PIL import Image

import vit_tf
from vit_tf import build_vit, classifier, data, files, training, variants
from vit_tf.commands.main import main
from vit_tf.preprocessing import Preprocessing
from vit_tf.training import Recipe, ending
from vit_tf.training.loop.checkpoints import to_arrays

NAMES = ("cat", "dog", "Käfer\n")
TINY = dict(image_size=16, patch_size=8, num_layers=1, hidden_dim=16, num_heads=2, mlp_dim=16, num_classes=3)
PREPARE = Preprocessing((16, 16), crop_fraction=1.0)


def make_run(folder, recipe=None, **changes):
    """Returns the ending and the trainer of a run that has not begun."""
    recipe = recipe or Recipe(epochs=1, batch_size=8, crop="none")
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), "uint8")
    batches = data.DataLoader(images, np.arange(30) % 3, 3, 8)
    network = training.make_model("vit_cifar10", TINY, recipe, PREPARE)
    trainer = training.make_trainer(network, recipe, batches, batches, (16, 16), folder)
    options = {"variant": "vit_cifar10", "hyperparameters": TINY, "preprocessing": PREPARE, "title": "a run"}
    return training.Ending(recipe, batches, NAMES, **{**options, **changes}), trainer


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_rehearsal_writes_everything_and_changes_nothing(tmp_path, monkeypatch, lora_rank):
    finish, trainer = make_run(tmp_path, Recipe(epochs=1, batch_size=8, crop="none", lora_rank=lora_rank))
    written = []
    original = ending.check_model

    def look(few, task, model, folder):
        written.extend(path.name for path in folder.parent.iterdir())
        original(few, task, model, folder)
        assert len(few.test.labels) == ending.NUM_REHEARSED

    monkeypatch.setattr(ending, "check_model", look)
    before = to_arrays(trainer.engine.variables)
    states = random.getstate(), np.random.get_state()[1].tobytes(), vars(trainer.progress).copy()
    trainable = [variable.path for variable in trainer.engine.training_model.trainable_variables]
    ending.rehearse(finish, trainer)
    after = to_arrays(trainer.engine.variables)
    assert {"metrics.json", "model", "curves.png", "confusion.png", "predictions.png"} <= set(written)
    assert not list(tmp_path.iterdir())
    assert before.keys() == after.keys()
    assert all(array.tobytes() == after[name].tobytes() for name, array in before.items())
    assert states[:2] == (random.getstate(), np.random.get_state()[1].tobytes())
    assert states[2] == vars(trainer.progress) and not trainer.best_weights
    assert trainable == [variable.path for variable in trainer.engine.training_model.trainable_variables]
    assert any("lora" in path for path in trainable) == bool(lora_rank)


def failing(*_, **__):
    raise ValueError("it cannot be done")


def lossy(folder, model, *arguments, **outputs):
    """Saves another model than it was given."""
    randomize(model)
    original_save(folder, model, *arguments, **outputs)
    randomize(model, scale=0.3)


original_save = classifier.save


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "place, name, replacement, message",
    [
        (ending, "write_metrics", failing, "cannot be done"),
        (ending, "draw_report", failing, "cannot be done"),
        (classifier, "save", failing, "cannot be done"),
        (classifier, "load", failing, "cannot be done"),
        (classifier, "is_timm", failing, "cannot be done"),
        (classifier, "save", lossy, "gives other weights than were written: .*patch_embed"),
    ],
)
def test_an_end_that_fails_does_so_before_the_start(run, monkeypatch, place, name, replacement, message):
    finish, trainer = run
    monkeypatch.setattr(place, name, replacement)
    expected = f"rehearsal of this run's end failed, before its start: .*{message}"
    with pytest.raises(ValueError, match=expected):
        ending.rehearse(finish, trainer)
    assert not list(trainer.folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(hyperparameters={**TINY, "patch_size": 4}), "rehearsal"),
        (dict(hyperparameters={**TINY, "layer_scale_init": 0.1}), "rehearsal"),
        (dict(hyperparameters={**TINY, "depth": object()}), "unknown hyperparameter 'depth'"),
        (dict(preprocessing=Preprocessing((32, 32))), "model's folder gives Preprocessing"),
    ],
)
def test_what_does_not_fit_the_model(tmp_path, changes, message):
    finish, trainer = make_run(tmp_path)
    finish = training.Ending(**{**vars(finish), **changes})
    with pytest.raises(ValueError, match=message):
        ending.rehearse(finish, trainer)


@pytest.mark.slow
def test_other_errors_tell_when_they_came(run, monkeypatch):
    finish, trainer = run
    monkeypatch.setattr(ending, "draw_report", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        ending.rehearse(finish, trainer)
    assert "rehearsal of the run's end" in caught.value.__notes__[0]


# ---------------------------------------------------------------------------------------------------
# The commands
# ---------------------------------------------------------------------------------------------------
@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The arguments of the two commands for a few small images."""
    for name in ("vit_cifar10", "vit_cifar10_hybrid"):
        tiny = variants.get_variant(name, **TINY, stem_width=8)
        monkeypatch.setitem(variants.VARIANTS, name, tiny)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), "uint8")
    labels = np.arange(30) % 10
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=labels, x_test=pixels[:10], y_test=labels[:10])
    (tmp_path / "images").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / f"{'cat' if i % 2 else 'dog'}.{i}.png")
    options = ["--epochs", "1", "--batch-size", "8", "--crop", "none", "--out", str(tmp_path / "run")]
    size = ["--set", "num_classes=10", "--optimizer", "adamw", "--progressive-resizing", "none"]
    return {
        "finetune": ["finetune", str(tmp_path / "images"), "--model", "vit_cifar10", *options],
        "train": ["train", "--data", str(tmp_path / "a.npz"), *options, *size, "--no-mixed-precision"],
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", ["finetune", "train"])
@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_a_run_whose_rehearsal_ends_leaves_nothing(command, error, commands, tmp_path, monkeypatch):
    """Neither a mistake nor Ctrl-C: the same command, or another one, begins anew."""

    def fail(*_):
        raise error

    monkeypatch.setattr(ending, "draw_report", fail)
    with pytest.raises(type(error)):
        main(commands[command])
    assert not (tmp_path / "run").exists()


def hugging_face_dino(folder, image_size, patch_size):
    """A small DINOv2 as transformers writes it, with random weights."""
    sizes = dict(hidden_dim=24, num_layers=2, num_heads=2, mlp_dim=48, image_size=image_size)
    model = build_vit("vit_small_patch14_dinov2", patch_size=patch_size, num_classes=0, **sizes)
    folder.mkdir()
    config = {
        "model_type": "dinov2",
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "image_size": image_size,
        "patch_size": patch_size,
    }
    files.write_json(folder / "config.json", config)
    vit_tf.save_weights(randomize(model), folder / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("image_size, patch_size", [(42, 14), (28, 7)])
def test_a_hugging_face_model_that_16_does_not_divide(
    image_size, patch_size, commands, tmp_path, monkeypatch
):
    monkeypatch.setattr(ending, "draw_report", lambda *_: None)
    hugging_face_dino(tmp_path / "dino", image_size, patch_size)
    command = [*commands["finetune"][:2], *commands["finetune"][4:], "--recipe", "linear-probe"]
    assert main([*command, "--weights", str(tmp_path / "dino")]) in (None, 0)
    loaded = vit_tf.load(tmp_path / "run" / "model")
    assert loaded.labels == ("cat", "dog") and loaded.model.input_shape == (None, image_size, image_size, 3)
    assert "architecture" not in json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    before = build_vit(weights=tmp_path / "dino").get_layer("block_1").get_weights()
    for array, expected in zip(loaded.model.get_layer("block_1").get_weights(), before):
        np.testing.assert_array_equal(array, expected)
