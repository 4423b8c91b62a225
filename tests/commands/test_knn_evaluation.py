"""`vit-tf evaluate --knn`, with a linear model on ONNX Runtime."""

import csv
import json
import shutil

import numpy as np
import pytest
from support.command_line import run
from support.embedded import vectors_of

from vit_tf.commands.main import main
from vit_tf.embeddings import knn_votes, read_embeddings


def test_knn(capsys, embedded, features, photos, tmp_path):
    main([*map(str, embedded)])
    capsys.readouterr()
    embeddings = read_embeddings(tmp_path / "x.npz")
    labels = np.array([["blue", "green", "red"].index(label) for label in embeddings.labels])
    wanted = (knn_votes(embeddings.vectors, labels, None, 3).argmax(1) == labels).mean()
    for data, options in ((tmp_path / "x.npz", []), (photos, ["--weights", features])):
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


def test_knn_of_parts(capsys, features, photos, tmp_path):
    folder = tmp_path / "parts"
    for part, numbers in (("train", "012"), ("val", "3")):
        for name in ("red", "green", "blue"):
            (folder / part / name).mkdir(parents=True)
            for number in numbers:
                shutil.copy(photos / name / f"{number}.png", folder / part / name)
    (folder / "val" / "red" / "bad.png").write_text("words")
    options = ["evaluate", folder, "--weights", features, "--knn", 2]
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


def test_knn_refuses(capsys, features, photos, tmp_path):
    data = [photos, "--weights", features]
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
    run(capsys, "embed", flat, "--weights", features, "--out", tmp_path / "flat.npz")
    with pytest.raises(ValueError, match="flat.npz' has no labels: embed a folder with one folder per class"):
        run(capsys, "evaluate", tmp_path / "flat.npz", "--knn", 1)
