"""What a command does before Keras is imported, in processes of their own."""

import os
import signal
import subprocess
import sys
import time

import keras
import pytest
from PIL import Image
from support.paths import ROOT

from vit_tf import build_vit
from vit_tf.commands.main import COMMANDS
from vit_tf.commands.startup import START_UP_LINES
from vit_tf.data.augment.batch import RandomFlip

HEAVY = ("keras", "tensorflow", "jax", "torch", "grain", "matplotlib")
RUN = f"""
import atexit, sys
atexit.register(lambda: print("imported:", *({set(HEAVY)} & sys.modules.keys()), file=sys.stderr))
sys.argv[0] = "vit-tf"
from vit_tf.commands.main import entry
entry()
"""


def environment(**variables):
    """Returns this process's environment as a user has it: with the words of TensorFlow."""
    inherited = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return {**inherited, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow", **variables}


def run(*command, **variables):
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment(**variables), capture_output=True, text=True
    )


@pytest.mark.fast_cases(6)
@pytest.mark.parametrize(
    "arguments, code",
    [
        (["--help"], 0),
        *[([command, "--help"], 0) for command in COMMANDS],
        (["list"], 0),
        (["list", "resnet"], 2),
        (["predict", "missing.jpg"], 2),
        (["predict", "a.jpg", "--weights", "missing.npz"], 2),
        (["predict", "a.jpg", "--top", "0"], 2),
        (["summary", "vit_b17"], 2),
        (["summary", "vit_b16", "--image-size", "225"], 2),
        (["plan", "vit_b16", "--devices", "12"], 2),
        (["convert", "missing", "out.keras"], 2),
        (["convert", "cifar10", "out.onnx"], 2),
        (["explain", "missing.jpg"], 2),
        (["frobnicate"], 2),
        ([], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_answers_without_keras(arguments, code, tmp_path):
    process = run("-c", RUN, *arguments)
    *errors, imported = process.stderr.splitlines()
    assert (process.returncode, imported.strip()) == (code, "imported:")
    assert bool(process.stdout) == (code == 0) and bool(errors) == (code == 2)


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("command", [["finetune"], ["train", "--data"], ["evaluate"]], ids=lambda x: x[0])
def test_bad_data_is_refused_without_keras_and_leaves_no_run(command, tmp_path):
    (tmp_path / "empty").mkdir()
    run_folder = [] if command == ["evaluate"] else ["--out", tmp_path / "run"]
    process = run("-c", RUN, *command, tmp_path / "empty", *run_folder)
    error, imported = process.stderr.splitlines()
    assert (process.returncode, imported.strip()) == (2, "imported:") and "it is empty" in error
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_ctrl_c_during_the_first_imports_is_one_line():
    interrupt = """
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "vit_tf.commands.parser":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
"""
    process = run("-c", RUN.replace("entry()", f"{interrupt}entry()"), "list")
    assert (process.returncode, process.stderr) == (130, "interrupted\nimported:\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "first, second", [("vit_tf", "keras"), pytest.param("keras", "vit_tf", marks=pytest.mark.exhaustive)]
)
def test_keras_loads_a_model_after_a_bare_import(first, second, tmp_path):
    """A ViT and a layer of augmentation, which are registered with Keras in modules of their own."""
    path = tmp_path / "model.keras"
    vit = build_vit("test_vit", include_preprocessing=True)
    images = keras.Input(vit.input_shape[1:])
    keras.Model(images, vit(RandomFlip()(images)), name="flipped").save(path)
    load = f"import {first}, {second}; print(keras.saving.load_model({str(path)!r}).name)"
    process = run("-c", load)
    assert process.stdout.strip() == "flipped", process.stderr


def test_names_are_listed_without_an_import():
    process = run("-c", "import sys, vit_tf; dir(vit_tf); print({'keras', 'numpy'} & sys.modules.keys())")
    assert process.stdout.strip() == "set()"


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


@pytest.mark.slow
def test_start_up_lines_are_left_out_and_others_are_not(image, tmp_path):
    process = run("-m", "vit_tf.commands.main", "predict", image, "--weights", "cifar10")
    assert process.returncode == 0 and len(process.stdout.splitlines()) == 6
    assert process.stderr.startswith("note: cifar10 is a small model") and process.stderr.count("\n") == 1
    lines = b"I0000 00:00:1.1 2 port.cc:153] oneDNN\nE0000 00:00:1.1 2 gpu.cc:1] no memory\nhalf a line"
    # In the place of Keras: lines of C++ code, then a crash.
    (tmp_path / "keras.py").write_text(f"import os\nos.write(2, {lines!r})\nos.abort()")
    process = run("-m", "vit_tf.commands.main", "predict", image, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert process.returncode == -signal.SIGABRT
    assert process.stderr.splitlines()[1:] == ["E0000 00:00:1.1 2 gpu.cc:1] no memory", "half a line"]


@pytest.mark.slow
def test_the_user_s_level_of_tensorflow_s_log_counts(image):
    process = run("-m", "vit_tf.commands.main", "predict", image, TF_CPP_MIN_LOG_LEVEL="0")
    assert process.returncode == 0 and "oneDNN custom operations are on" in process.stderr
    assert any(START_UP_LINES.search(line.encode()) for line in process.stderr.splitlines())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_during_the_imports_is_one_line(image, number, tmp_path):
    (tmp_path / "keras.py").write_text("import time\nopen('started', 'w').close()\ntime.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", "vit_tf.commands.main", "predict", image],
        env=environment(PYTHONPATH=f"{tmp_path}:{ROOT}"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal does: the whole group
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and out == ""
    assert errors.splitlines()[1:] == ["interrupted"]  # after the note
