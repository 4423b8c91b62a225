"""More than the machine's memory: refused before it is taken, or one line when it is used up."""

import gc

import pytest
from support.memory_errors import RAISED, error_of

from vit_tf import memory
from vit_tf.commands import main as cli
from vit_tf.commands.parser import run


def test_the_machine_tells_its_memory(monkeypatch, tmp_path):
    total = memory.total_memory()
    assert total is None or 10**8 < total < 10**15
    for text, expected in (("1000\n", 1000), ("max\n", total)):  # a container's limit
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(memory, "LIMITS", (str(tmp_path / "memory.max"),))
        assert memory.total_memory() in (expected, total and max(total, expected or 0))


def test_collection_goes_on_after_a_pause():
    assert gc.isenabled()
    with pytest.raises(KeyError), memory.paused_collection():
        assert not gc.isenabled()
        with memory.paused_collection():
            pass
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


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


@pytest.mark.parametrize("command", ["convert", "finetune", "train"])
def test_commands_refuse_huge_images_at_once(command, tmp_path):
    size = "2000000"
    if command == "convert":
        call = lambda: cli.main(["convert", "cifar10", str(tmp_path / "o.keras"), "--image-size", size])  # noqa: E731
    else:
        options = {"finetune": [str(images(tmp_path)), "--image-size", size]}
        options["train"] = ["--data", "sample", "--set", f"image_size={size}"]
        call = lambda: cli.main([command, *options[command], "--out", str(tmp_path / "run")])  # noqa: E731
    with pytest.raises(memory.OutOfMemory, match="needs at least .* GB"):
        call()
    assert not (tmp_path / "run").exists()


def images(folder):
    for label in ("cat", "dog"):
        (folder / "images" / label).mkdir(parents=True)
        for i in range(4):
            (folder / "images" / label / f"{i}.png").write_bytes(b"")
    return folder / "images"


def test_free_memory_is_that_of_the_machine():
    free = memory.free_memory()
    assert free is None or 1e6 < free < 1e14
