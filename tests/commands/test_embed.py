"""`vit-tf embed`, `search`, `duplicates` and `evaluate --knn`, with a linear model on ONNX Runtime."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from support.exported import PREPROCESSING, expected_logits, write_features
from support.paths import ROOT

from vit_tf.commands.main import main
from vit_tf.embeddings import knn_votes, near_duplicates, read_embeddings, vector_journal
from vit_tf.preprocessing import Preprocessing

PREPARE = Preprocessing(**PREPROCESSING)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_features(tmp_path_factory.mktemp("model") / "exported")


@pytest.fixture
def photos(tmp_path):
    """A folder with a folder per class, of one colour each, and a copy of one photograph."""
    folder, rng = tmp_path / "photos", np.random.default_rng(3)
    for name, colour in (("red", [200, 20, 40]), ("green", [20, 190, 50]), ("blue", [10, 40, 220])):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.clip(colour + rng.normal(0, 30, 3) + rng.normal(0, 9, (30, 40, 3)), 0, 255)
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{i}.png")
    shutil.copy(folder / "red" / "1.png", folder / "red" / "copy of 1.png")
    return folder


@pytest.fixture
def embedded(model, photos, tmp_path):
    """The options that embed the photographs, and the file."""
    return ["embed", photos, "--weights", model, "--out", tmp_path / "x.npz", "--runtime", "onnxruntime"]


def run(capsys, *arguments):
    """Returns (exit code, stdout, stderr) of a command."""
    code = main([*map(str, arguments)])
    return code, *capsys.readouterr()


def vectors_of(folder, paths):
    return expected_logits(np.concatenate([PREPARE(folder / path) for path in paths]))


@pytest.mark.parametrize("ending", ["npz", "parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embed(capsys, model, photos, tmp_path, ending, dtype):
    (photos / "green" / "bad.jpg").write_text("words")
    (photos / "notes.txt").write_text("words")
    out = tmp_path / f"x.{ending}"
    options = ["--weights", model, "--out", out, "--dtype", dtype, "--batch-size", 5, "--normalize"]
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
    assert (info.source, info.folder, info.normalized) == (str(model), str(photos), True)
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


def test_a_folder_without_classes(capsys, model, photos, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for name in ("10.png", "9.png", "b\udcff.png"):
        shutil.copy(photos / "red" / "1.png", folder / name)
    code, _, errors = run(capsys, "embed", folder, "--weights", model, "--out", tmp_path / "flat.npz")
    embeddings = read_embeddings(tmp_path / "flat.npz")
    assert code == 1 and "'b\\udcff.png': its name is no UTF-8, rename it" in errors
    assert embeddings.paths == ["9.png", "10.png"] and embeddings.labels == [None, None]


def test_nothing_to_embed(capsys, model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    options = ["embed", folder, "--weights", model, "--out", tmp_path / "x.npz"]
    with pytest.raises(ValueError, match="no image in the folder"):
        run(capsys, *options)
    (folder / "bad.png").write_text("words")
    code, _, errors = run(capsys, *options)
    assert code == 2 and "bad.png" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_bad_arguments(photos, model, tmp_path):
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
        ([photos, "--out", "x.npz", "--weights", model, "--pooling", "avg"], "leave both out"),
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


# ---------------------------------------------------------------------------------------------------
# search, duplicates, evaluate --knn
# ---------------------------------------------------------------------------------------------------
def test_search(capsys, embedded, photos, tmp_path):
    main([*map(str, embedded)])
    capsys.readouterr()
    query, page = photos / "red" / "1.png", tmp_path / "page.html"
    arguments = ["search", tmp_path / "x.npz", query, photos / "blue" / "2.png", "--top", 3]
    code, text, _ = run(capsys, *arguments, "--html", page)
    lines = text.splitlines()
    assert code == 0 and lines[:2] == [f"wrote {page}", str(query)]
    assert lines[2:4] == ["   1.000  red/1.png  [red]", "   1.000  red/copy of 1.png  [red]"]
    assert lines[5:7] == [str(photos / "blue" / "2.png"), "   1.000  blue/2.png  [blue]"]
    html = page.read_text()
    assert html.count("<figure") == 8 and 'href="photos/red/1.png"' in html and "is no image" not in html
    with pytest.raises(ValueError, match="page.html' already exists"):
        run(capsys, *arguments, "--html", page)
    photos.rename(tmp_path / "moved")
    arguments[2:4] = [tmp_path / "moved" / "red" / "1.png"]
    moved = [*arguments, "--html", page, "--force"]
    run(capsys, *moved)
    assert page.read_text().count("is no image") == 3
    code, text, errors = run(capsys, *moved, "--images", tmp_path / "moved", "--json")
    assert "is no image" not in page.read_text() and errors == f"wrote {page}\n"
    (found,) = json.loads(text)
    assert found["results"][1] == {"image": "red/copy of 1.png", "label": "red", "similarity": 1.0}


def test_search_refuses(capsys, embedded, model, photos, tmp_path):
    main([*map(str, embedded)])
    file, query = tmp_path / "x.npz", photos / "red" / "1.png"
    (tmp_path / "bad.jpg").write_text("words")
    other = write_features(tmp_path / "other")
    for name in ("vit_tf.json",):
        text = (other / name).read_text()
        (other / name).write_text(text.replace("0.4", "0.41"))
    for arguments, message in (
        ([file, tmp_path / "bad.jpg"], "bad.jpg': .*not an image"),
        ([file, tmp_path / "none.jpg"], "none.jpg"),
        ([query, query], "must end in .parquet or .npz"),
        ([file, query, "--top", 0], "--top must be a positive int"),
        ([file, query, "--images", tmp_path / "none"], "--images '.*none' is no folder"),
        ([file, query, "--weights", tmp_path / "none"], "the weights of '.*x.npz' cannot be opened: "),
        ([file, query, "--weights", other], "x.npz' was embedded with preprocessing {.*, and not {"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            run(capsys, "search", *arguments)
    copy = shutil.move(model, tmp_path / "elsewhere")
    try:
        with pytest.raises(
            ValueError, match="cannot be opened: .*; if the weights have moved, add --weights"
        ):
            run(capsys, "search", file, query)
        assert run(capsys, "search", file, query, "--weights", copy)[0] == 0
    finally:
        shutil.move(copy, model)


def test_duplicates(capsys, embedded, photos, tmp_path):
    main([*map(str, embedded)])
    capsys.readouterr()
    embeddings, page = read_embeddings(tmp_path / "x.npz"), tmp_path / "page.html"
    code, text, _ = run(capsys, "duplicates", tmp_path / "x.npz", "--threshold", 0.999999)
    assert code == 0 and text.splitlines() == [
        " 1.000  red/1.png",
        " 1.000  red/copy of 1.png",
        "",
        "1 groups with 2 of 13 images reach the similarity 0.999999",
    ]
    groups = near_duplicates(embeddings.vectors, 0.9)
    code, text, _ = run(
        capsys, "duplicates", tmp_path / "x.npz", "--threshold", 0.9, "--json", "--html", page
    )
    wanted = [[embeddings.paths[i] for i in indices] for indices, _ in groups]
    assert [[row["image"] for row in group] for group in json.loads(text)] == wanted and len(wanted) > 1
    assert page.read_text().count("<figure") == sum(map(len, wanted))
    with pytest.raises(ValueError, match=r"--threshold must be a number in \(0, 1\]"):
        run(capsys, "duplicates", tmp_path / "x.npz", "--threshold", 1.5)


def test_knn(capsys, embedded, model, photos, tmp_path):
    main([*map(str, embedded)])
    capsys.readouterr()
    embeddings = read_embeddings(tmp_path / "x.npz")
    labels = np.array([["blue", "green", "red"].index(label) for label in embeddings.labels])
    wanted = (knn_votes(embeddings.vectors, labels, None, 3).argmax(1) == labels).mean()
    for data, options in ((tmp_path / "x.npz", []), (photos, ["--weights", model])):
        code, text, _ = run(capsys, "evaluate", data, "--knn", 3, "--json", *options)
        metrics = json.loads(text)
        assert code == 0 and metrics["accuracy"] == wanted and metrics["part"] == "all"
        assert (metrics["images"], metrics["gallery"], metrics["k"]) == (13, 12, 3)
    out = tmp_path / "results"
    code, text, _ = run(capsys, "evaluate", tmp_path / "x.npz", "--knn", 3, "--out", out)
    assert text.endswith(f"k-NN accuracy {wanted:.2%} (k 3; 13 images: all; 12 to compare with)\n")
    assert (out / "confusion.png").exists()
    rows = list(csv.DictReader((out / "per_class.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == ["blue", "green", "red"]


def test_knn_of_parts(capsys, model, photos, tmp_path):
    folder = tmp_path / "parts"
    for part, numbers in (("train", "012"), ("val", "3")):
        for name in ("red", "green", "blue"):
            (folder / part / name).mkdir(parents=True)
            for number in numbers:
                shutil.copy(photos / name / f"{number}.png", folder / part / name)
    (folder / "val" / "red" / "bad.png").write_text("words")
    options = ["evaluate", folder, "--weights", model, "--knn", 2]
    with pytest.raises(ValueError, match="1 of 4 images cannot be read, more than 1.00%"):
        run(capsys, *options)
    code, text, errors = run(capsys, *options, "--max-bad", 0.5, "--json")
    metrics = json.loads(text)
    assert (metrics["part"], metrics["images"], metrics["gallery"]) == ("validation", 3, 9)
    gallery = [f"train/{name}/{i}.png" for name in ("blue", "green", "red") for i in range(3)]
    queries = [f"val/{name}/3.png" for name in ("blue", "green", "red")]
    classes = np.repeat([0, 1, 2], 3)
    votes = knn_votes(vectors_of(folder, gallery), classes, vectors_of(folder, queries), 2)
    assert metrics["accuracy"] == (votes.argmax(1) == [0, 1, 2]).mean()
    assert "left out: val/red/bad.png" in errors


def test_knn_refuses(capsys, model, photos, tmp_path):
    data = [photos, "--weights", model]
    for arguments, message in (
        ([*data, "--knn", 0], "--knn must be a positive int"),
        ([*data, "--knn", 13], "`k` must be at most 12"),
        ([*data, "--knn", 2, "--flip-tta"], "--match and --flip-tta are for the classes of a head"),
        ([*data, "--pooling", "avg"], "--pooling are for the features of --knn: add --knn 20"),
        ([*data, "--knn", 2, "--pooling", "cls"], "--pooling must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            run(capsys, "evaluate", *arguments)
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(photos / "red" / "1.png", flat)
    run(capsys, "embed", flat, "--weights", model, "--out", tmp_path / "flat.npz")
    with pytest.raises(ValueError, match="flat.npz' has no labels: embed a folder with one folder per class"):
        run(capsys, "evaluate", tmp_path / "flat.npz", "--knn", 1)
