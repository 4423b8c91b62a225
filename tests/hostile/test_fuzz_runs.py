"""Readers of run folders over damaged files: each returns, or raises one short ValueError."""

from dataclasses import asdict

import numpy as np
from hypothesis import given, settings
from support.damage import BUDGET, BYTE_EDITS, EDITS, SIZES, damaged, damaged_bytes, survives, write_json

from vit_tf.files import sha256
from vit_tf.training.loop.checkpoints import Checkpoints
from vit_tf.training.presets import RECIPES
from vit_tf.training.recipes import read_recipe
from vit_tf.training.run_folder import read_config, read_model

RUN = {
    "command": {"script": "finetune.py", "data": "a", "model": None, "weights": None, "settings": {}},
    "recipe": asdict(RECIPES["full"]),
    "model": {
        "variant": "vit_b16",
        "hyperparameters": SIZES,
        "preprocessing": {"image_size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_fraction": 1.0},
        "new_head": True,
    },
    "versions": {"keras": "3"},
}


def read_run(folder):
    saved = read_config(folder)
    read_recipe(saved["recipe"]), read_model(saved)
    saved["command"]["data"], saved["command"]["settings"]


def test_run(tmp_path):
    @settings(BUDGET, max_examples=80)
    @given(EDITS)
    def check(edits):
        write_json(tmp_path / "config.json", damaged(RUN, edits))
        survives(read_run, tmp_path)

    write_json(tmp_path / "config.json", RUN)
    read_run(tmp_path)
    check()


def test_checkpoints_with_the_right_hash(tmp_path):
    states = Checkpoints(tmp_path)
    path = states.save(1, {"a": np.ones(3, "float32")}, {"epoch": 1})
    whole = path.read_bytes()

    @BUDGET
    @given(BYTE_EDITS)
    def check(edits):
        for old in states.paths():
            old.unlink()
        (tmp_path / "a").write_bytes(damaged_bytes(whole, edits))
        digest = sha256(tmp_path / "a")[:16]
        (tmp_path / "a").rename(tmp_path / f"step-00000001-{digest}.safetensors")
        survives(states.load)

    check()
