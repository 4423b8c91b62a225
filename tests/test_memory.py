"""More than the machine's memory: refused before it is taken, or one line when it is used up."""

import importlib.util

import keras
import numpy as np
import pytest
from support.paths import ROOT

from vit_tf import build_vit, count_flops, data, memory, training
from vit_tf.commands import main as cli
from vit_tf.commands.parser import run
from vit_tf.flops import require_memory, training_bytes
from vit_tf.flops.memory_estimate import least_bytes, least_parameters
from vit_tf.training import Recipe
from vit_tf.variants import get_variant, list_models

TINY = dict(image_size=16, patch_size=8, num_layers=2, hidden_dim=16, num_heads=2, mlp_dim=16, num_classes=3)
GB = 10**9


def test_the_machine_tells_its_memory(monkeypatch, tmp_path):
    total = memory.total_memory()
    assert total is None or 10**8 < total < 10**15
    for text, expected in (("1000\n", 1000), ("max\n", total)):  # a container's limit
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(memory, "LIMITS", (str(tmp_path / "memory.max"),))
        assert memory.total_memory() in (expected, total and max(total, expected or 0))


@pytest.mark.parametrize("name", [*list_models("test*"), "vit_base_patch16_siglip_256", "vit_cifar10"])
def test_the_lower_bound_is_one_and_near(name):
    with keras.StatelessScope(initialize_variables=False):
        parameters = build_vit(name).count_params()
    keras.utils.clear_session()
    assert 0.5 * parameters < least_parameters(get_variant(name)) <= parameters


def test_a_training_step_takes_more_than_the_bound():
    network = build_vit("vit_cifar10", **TINY)
    estimate = training_bytes(network, 8)
    trained = sum(keras.ops.size(variable.value) for variable in network.trainable_variables)
    weights = 4 * network.count_params() + 12 * int(trained)
    assert estimate == weights + count_flops(network, 8).totals.activation_bytes
    assert least_bytes(get_variant("vit_cifar10", **TINY), 8, True) < estimate
    network.trainable = False
    assert training_bytes(network, 8) == 4 * network.count_params()


@pytest.mark.parametrize(
    "options, batch_size, trains_blocks, is_refused",
    [
        (dict(image_size=224), 64, True, False),
        (dict(image_size=100_000), 1, False, True),
        (dict(image_size=(16, 10**9)), 1, False, True),
        (dict(num_layers=10**6), 1, False, True),
        (dict(hidden_dim=12 * 10**6), 1, False, True),
        (dict(num_classes=10**9), 1, False, True),
        (dict(image_size=4992), 8, False, False),
        (dict(image_size=4992), 64, True, True),
    ],
)
def test_what_cannot_fit_is_refused(options, batch_size, trains_blocks, is_refused, monkeypatch):
    monkeypatch.setattr("vit_tf.flops.memory_estimate.total_memory", lambda: 24 * GB)
    if not is_refused:
        return require_memory("vit_base_patch16_224", options, batch_size, trains_blocks)
    with pytest.raises(memory.OutOfMemory, match="needs at least [0-9,.]+ GB .* this machine has 24.0 GB"):
        require_memory("vit_base_patch16_224", options, batch_size, trains_blocks)


def error_of(name, message, base=RuntimeError):
    return type(name, (base,), {})(message)


TENSORFLOW = "{{node m/dense/MatMul}} OOM when allocating tensor with shape[8,12,9,9] and type float on x"
RAISED = [
    MemoryError("Unable to allocate 3.73 GiB for an array with shape (1, 2)"),
    error_of("ResourceExhaustedError", TENSORFLOW, Exception),
    error_of("XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory allocating 123456 bytes."),
    error_of("OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 40000 bytes."),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_a_lack_of_memory_is_one_line(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    line = capsys.readouterr().err
    assert caught.value.code == 2 and line.count("\n") == 1 and line.startswith("error: out of memory (")


def test_other_errors_are_not_about_memory():
    for error in (RuntimeError("bad"), ValueError("out of memory"), error_of("InternalError", "cuDNN")):
        assert not memory.is_out_of_memory(error)


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_a_run_out_of_memory_says_what_a_step_needs(error, tmp_path, monkeypatch, capsys):
    recipe = Recipe(epochs=1, batch_size=8, crop="none")
    batches = data.DataLoader(np.zeros((16, 16, 16, 3), "uint8"), np.arange(16) % 3, 3, 8)
    network = training.make_network("vit_cifar10", TINY, recipe)
    trainer = training.make_trainer(network, recipe, batches, batches, (16, 16), tmp_path)

    def step(*_, **__):
        raise error

    monkeypatch.setattr(trainer.model, "train_on_batch", step)
    monkeypatch.setattr("vit_tf.training.memory_limit.total_memory", lambda: 1000)
    needed = memory.gigabytes(training_bytes(network, 8))
    expected = rf"out of memory at step 0 \(.*\): a training step of 8 images needs about {needed} of"
    with pytest.raises(memory.OutOfMemory, match=expected):
        training.run_training(trainer, tmp_path)
    assert f"note: a training step of 8 images needs about {needed} of memory" in capsys.readouterr().out


@pytest.mark.parametrize("remat", [False, True])
def test_a_step_that_takes_far_too_much_is_refused(remat, tmp_path, monkeypatch):
    recipe = Recipe(epochs=1, batch_size=8, crop="none", remat=remat)
    batches = data.DataLoader(np.zeros((16, 16, 16, 3), "uint8"), np.arange(16) % 3, 3, 8)
    network = training.make_network("vit_cifar10", TINY, recipe)
    monkeypatch.setattr("vit_tf.training.memory_limit.total_memory", lambda: 1000)
    arguments = network, recipe, batches, batches, (16, 16), tmp_path
    if remat:  # nobody knows what it takes
        assert training.make_trainer(*arguments)
        return
    with pytest.raises(memory.OutOfMemory, match="step of 8 images needs about .* this machine has"):
        training.make_trainer(*arguments)


@pytest.mark.parametrize("command", ["convert", "finetune", "train_cifar10"])
def test_commands_refuse_huge_images_at_once(command, tmp_path):
    size = "2000000"
    if command == "convert":
        call = lambda: cli.main(["convert", "cifar10", str(tmp_path / "o.keras"), "--image-size", size])  # noqa: E731
    else:
        path = ROOT / "scripts" / f"{command}.py"
        spec = importlib.util.spec_from_file_location(command, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        options = {"finetune": [str(images(tmp_path)), "--image-size", size]}
        options["train_cifar10"] = ["--data", "sample", "--set", f"image_size={size}"]
        call = lambda: module.main([*options[command], "--out", str(tmp_path / "run")])  # noqa: E731
    with pytest.raises(memory.OutOfMemory, match="needs at least .* GB"):
        call()
    assert not (tmp_path / "run").exists()


def images(folder):
    for label in ("cat", "dog"):
        (folder / "images" / label).mkdir(parents=True)
        for i in range(4):
            (folder / "images" / label / f"{i}.png").write_bytes(b"")
    return folder / "images"
