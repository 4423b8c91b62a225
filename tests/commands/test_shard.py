"""`vit-tf shard`, and shards as DATA of other commands."""

import shutil

import numpy as np
import pytest
from support.command_line import run
from support.shard_folders import make_images

from vit_tf.commands.main import main
from vit_tf.data import find_images
from vit_tf.embeddings import read_embeddings
from vit_tf.preprocessing import Preprocessing
from vit_tf.training.datasets import FileDataset
from vit_tf.training.presets import make_recipe
from vit_tf.training.tasks import SINGLE_LABEL


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = make_images(tmp_path_factory.mktemp("images"), per_class=8)
    shutil.rmtree(folder / "val")
    return folder


@pytest.fixture(scope="module", params=["arrayrecord", "webdataset"])
def shards(request, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "out"
    assert main(["shard", str(images), str(out), "--format", request.param]) == 0
    return out


def test_shard(capsys, images, tmp_path):
    source = shutil.copytree(images, tmp_path / "images")
    (source / "train/cat/bad.png").write_text("words")
    code, text, errors = run(capsys, "shard", source, tmp_path / "out", "--max-bad", 0.1)
    assert (code, errors) == (1, "")
    lines = text.splitlines()
    assert lines[0].startswith("1 files cannot be read and are left out: see ")
    assert lines[1].startswith("wrote 16 images in 1 shards, ")
    assert lines[2] == f"try: vit-tf train --data {tmp_path / 'out'}"
    with pytest.raises(ValueError, match="has finished shards"):
        main(["shard", str(source), str(tmp_path / "out")])
    with pytest.raises(ValueError, match="--shard-mb must be a positive int, got 0"):
        main(["shard", str(source), str(tmp_path / "out"), "--shard-mb", "0"])


@pytest.mark.parametrize("engine", ["train-batch", "compiled-epoch"])
def test_training_gets_the_same_batches(images, shards, tmp_path, engine):
    """The split, the order, the augmentation and the mixing are those of the folder, bit for bit."""
    settings = {"seed": 5, "batch_size": 4, "mixup": 0.2, "randaugment": 5}
    command = {"preset": "default", "settings": settings, "max_bad": 0.01}
    command |= {"validation_fraction": 0.25, "test_fraction": 0.25}
    recipe, preprocessing = make_recipe(command), Preprocessing(image_size=16)
    parts = []
    for name, source in (("folder", images), ("shards", shards)):
        (tmp_path / name).mkdir()
        dataset = FileDataset(str(source))
        dataset.split(command, recipe, tmp_path / name, is_new=True)
        dataset.split(command, recipe, tmp_path / name, is_new=False)
        parts.append(dataset.loaders(recipe, engine, SINGLE_LABEL, preprocessing))
    assert (tmp_path / "folder/split.csv").read_bytes() == (tmp_path / "shards/split.csv").read_bytes()
    for part, expected in parts[0].items():
        for (x, y), (own_x, own_y) in zip(expected.epoch(1), parts[1][part].epoch(1), strict=True):
            np.testing.assert_array_equal(x, own_x)
            np.testing.assert_array_equal(y, own_y)


def test_the_check_of_a_command(images, tmp_path):
    """The level is part of the command of a run, unless it is the full one, as of earlier versions."""
    from vit_tf.commands.parser import Parser
    from vit_tf.commands.training_run import add_run_options, new_command

    parser = Parser()
    add_run_options(parser)
    for words, expected in (([], {}), (["--check", "full"], {}), (["--check", "none"], {"check": "none"})):
        args = parser.parse_args(words)
        args.data = str(images)
        command = new_command(args, "finetune", "full", "train-batch", None)
        assert {key: value for key, value in command.items() if key == "check"} == expected
    dataset, recipe = FileDataset(str(images)), make_recipe(command)
    dataset.split(command, recipe, tmp_path, is_new=True)
    assert (tmp_path / "split.csv").read_text().splitlines()[1].endswith(",")


def test_embed(capsys, features, shards, images, tmp_path):
    out = [tmp_path / "folder.npz", tmp_path / "shards.npz"]
    for source, path in zip((images, shards), out):
        assert run(capsys, "embed", source, "--weights", features, "--out", path)[0] == 0
    folder, sharded = map(read_embeddings, out)
    order = [folder.paths.index(path) for path in sharded.paths]
    assert len(order) == 16 and sharded.labels == [folder.labels[i] for i in order]
    np.testing.assert_allclose(sharded.vectors, folder.vectors[order], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shards", ["arrayrecord"], indirect=True)
def test_predict(capsys, hub, shards, images, tmp_path):
    model, weights = hub
    code, text, _ = run(capsys, "predict", shards, "--weights", weights, "--csv", tmp_path / "a.csv")
    assert code == 0 and text.startswith("wrote 16 rows")
    rows = sorted((tmp_path / "a.csv").read_text().splitlines()[1:])
    run(capsys, "predict", images, "--weights", weights, "--csv", tmp_path / "b.csv")
    folder_rows = sorted((tmp_path / "b.csv").read_text().splitlines()[1:])
    assert [row.replace(str(shards), str(images)).split(",")[:2] for row in rows] == [
        row.split(",")[:2] for row in folder_rows
    ]
    done = run(capsys, "predict", shards, "--weights", weights, "--csv", tmp_path / "a.csv", "--resume")
    assert "every image has a row" in done[1]


@pytest.mark.slow
@pytest.mark.parametrize("shards", ["arrayrecord"], indirect=True)
def test_a_damaged_image_is_named(capsys, hub, shards, tmp_path):
    own = shutil.copytree(shards, tmp_path / "own")
    path = next(path for path in own.iterdir() if path.name.startswith("train-"))
    data = bytearray(path.read_bytes())
    data[data.rindex(b"IDAT") + 30] ^= 1
    path.write_bytes(data)
    code, _, errors = run(capsys, "predict", own, "--weights", hub[1], "--top", 1)
    assert code == 1 and errors.count("copy the shard again") == 1 and f"error: {own}/train/" in errors


@pytest.mark.slow
@pytest.mark.parametrize("shards", ["webdataset"], indirect=True)
def test_evaluate(capsys, hub, shards):
    _, weights = hub
    code = main(["evaluate", str(shards), "--weights", str(weights), "--match", "order"])
    assert code == 0 and "16 images: all" in capsys.readouterr().out
    assert len(find_images(shards)) == 16
