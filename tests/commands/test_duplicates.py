"""`vit-tf duplicates`, with a linear model on ONNX Runtime."""

import json

import pytest
from support.command_line import run

from vit_tf.commands.main import main
from vit_tf.embeddings import near_duplicates, read_embeddings


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
