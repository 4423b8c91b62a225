"""`vit-tf embed`, with a linear model on ONNX Runtime."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.command_line import run
from support.embedded import PREPARE, vectors_of
from support.paths import ROOT

from vit_tf.commands.main import main
from vit_tf.embeddings import read_embeddings, vector_journal


@pytest.mark.parametrize("ending", ["npz", "parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embed(capsys, features, photos, tmp_path, ending, dtype):
    (photos / "green" / "bad.jpg").write_text("words")
    (photos / "notes.txt").write_text("words")
    out = tmp_path / f"x.{ending}"
    options = ["--weights", features, "--out", out, "--dtype", dtype, "--batch-size", 5, "--normalize"]
    code, text, errors = run(capsys, "embed", photos, *options)
    assert code == 1 and text == f"wrote 13 vectors of 4 values to {out}\n"
    assert "note: " in errors and "1 .txt" in errors and errors.count("bad.jpg") == 1
    embeddings = read_embeddings(out)
    assert embeddings.paths[:2] == ["blue/0.png", "blue/1.png"] and len(embeddings) == 13
    assert embeddings.labels == [path.split("/")[0] for path in embeddings.paths]
    wanted = vectors_of(photos, embeddings.paths)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(embeddings.vectors, wanted, atol=1e-5 if dtype == "float32" else 2e-3)
    info = embeddings.info
    assert (info.source, info.folder, info.normalized) == (str(features), str(photos), True)
    assert (info.preprocessing, info.pooling) == (PREPARE.to_dict(), None)
    with pytest.raises(ValueError, match=f"x.{ending}' already exists"):
        main(["embed", *map(str, [photos, *options])])
    assert run(capsys, "embed", photos, *options, "--force")[0] == 1


def test_new_images_are_added(capsys, embedded, photos, tmp_path):
    main([*map(str, embedded)])
    before = read_embeddings(tmp_path / "x.npz")
    assert "every image has a row" in run(capsys, *embedded, "--resume")[1]
    shutil.copy(photos / "red" / "1.png", photos / "blue" / "new.png")
    code, text, _ = run(capsys, *embedded, "--resume")
    after = read_embeddings(tmp_path / "x.npz")
    assert code == 0 and text.startswith("wrote 14 vectors")
    assert after.paths == [*before.paths, "blue/new.png"] and after.labels[-1] == "blue"
    np.testing.assert_array_equal(after.vectors[:13], before.vectors)
    copy = before.vectors[before.paths.index("red/1.png")]
    np.testing.assert_allclose(after.vectors[13], copy, atol=1e-5)
    with pytest.raises(ValueError, match="was embedded with dtype 'float32', and not 'float16'"):
        main([*map(str, embedded), "--resume", "--dtype", "float16"])


def test_a_folder_without_classes(capsys, features, photos, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for name in ("10.png", "9.png", "b\udcff.png"):
        shutil.copy(photos / "red" / "1.png", folder / name)
    code, _, errors = run(capsys, "embed", folder, "--weights", features, "--out", tmp_path / "flat.npz")
    embeddings = read_embeddings(tmp_path / "flat.npz")
    assert code == 1 and "'b\\udcff.png': its name is no UTF-8, rename it" in errors
    assert embeddings.paths == ["9.png", "10.png"] and embeddings.labels == [None, None]


def test_nothing_to_embed(capsys, features, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    options = ["embed", folder, "--weights", features, "--out", tmp_path / "x.npz"]
    with pytest.raises(ValueError, match="no image in the folder"):
        run(capsys, *options)
    (folder / "bad.png").write_text("words")
    code, _, errors = run(capsys, *options)
    assert code == 2 and "bad.png" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_bad_arguments(photos, features, tmp_path):
    out = tmp_path / "x.npz"
    (tmp_path / "x.npz.part").mkdir()
    for arguments, message in (
        ([photos, "--out", "x.csv"], "'x.csv' must end in .parquet or .npz"),
        ([photos, "--out", "none/x.npz"], "there is no folder 'none'"),
        ([photos, "--out", out], "x.npz.part' holds the vectors of a run that was stopped: add --resume"),
        ([tmp_path / "none", "--out", "x.npz"], "none' does not exist: give a folder of images"),
        ([photos / "red" / "1.png", "--out", "x.npz"], "1.png' is no folder"),
        ([photos, "--out", "x.npz", "--pooling", "cls"], "--pooling must be one of 'token', 'avg'"),
        ([photos, "--out", "x.npz", "--dtype", "int8"], "--dtype must be one of 'float32', 'float16'"),
        ([photos, "--out", "x.npz", "--image-size", "big"], "--image-size must be 224 or 224x288"),
        ([photos, "--out", "x.npz", "--batch-size", 0], "--batch-size must be a positive int"),
        ([photos, "--out", "x.npz", "--weights", "none"], "none"),
        ([photos, "--out", "x.npz", "--weights", features, "--pooling", "avg"], "leave both out"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            main(["embed", *map(str, arguments)])


def test_a_stop_and_resume(capsys, embedded, tmp_path, monkeypatch):
    main([*map(str, embedded)])
    whole = read_embeddings(tmp_path / "x.npz")
    (tmp_path / "x.npz").unlink()
    append, count = vector_journal.VectorJournal.append, 0

    def failing(*args):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        append(*args)

    monkeypatch.setattr(vector_journal.VectorJournal, "append", failing)
    with pytest.raises(KeyboardInterrupt):
        main([*map(str, embedded), "--batch-size", "4"])
    monkeypatch.undo()
    assert not (tmp_path / "x.npz").exists()
    with pytest.raises(ValueError, match="x.npz.part' holds the vectors of a run that was stopped"):
        main([*map(str, embedded)])
    with pytest.raises(ValueError, match="x.npz.part' was embedded with normalized False, and not True"):
        main([*map(str, embedded), "--resume", "--normalize"])
    capsys.readouterr()
    assert run(capsys, *embedded, "--resume")[1] == f"wrote 13 vectors of 4 values to {tmp_path}/x.npz\n"
    resumed = read_embeddings(tmp_path / "x.npz")
    assert resumed.paths == whole.paths and resumed.labels == whole.labels
    np.testing.assert_allclose(resumed.vectors, whole.vectors, atol=1e-5)
    assert not (tmp_path / "x.npz.part").exists()


def test_a_full_disk(capsys, embedded, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(vector_journal, "write_embeddings", full)
    with pytest.raises(OSError, match="No space left on device; .*x.npz.part keeps the vectors so far: make"):
        main([*map(str, embedded)])
    monkeypatch.undo()
    assert run(capsys, *embedded, "--resume")[0] == 0


@pytest.mark.slow
def test_a_kill_and_resume(embedded, photos, tmp_path):
    """A process that is killed in the middle leaves no file, and the rows so far."""
    for i in range(200):
        shutil.copy(photos / "red" / f"{i % 4}.png", photos / "blue" / f"more {i}.png")
    command = [sys.executable, "-m", "vit_tf.commands.main", *map(str, embedded), "--batch-size", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    rows = tmp_path / "x.npz.part" / "rows.jsonl"
    while process.poll() is None and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "x.npz").exists() and rows.stat().st_size
    assert main([*map(str, embedded), "--resume"]) == 0
    embeddings = read_embeddings(tmp_path / "x.npz")
    assert len(embeddings) == len(set(embeddings.paths)) == 213
    np.testing.assert_allclose(embeddings.vectors, vectors_of(photos, embeddings.paths), atol=1e-5)
