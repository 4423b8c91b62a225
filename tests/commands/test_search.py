"""`vit-tf search`, with a linear model on ONNX Runtime."""

import json
import shutil

import pytest
from support.command_line import run
from support.exported import write_features

from vit_tf.commands.main import main


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


def test_search_refuses(capsys, embedded, features, photos, tmp_path):
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
    copy = shutil.move(features, tmp_path / "elsewhere")
    try:
        with pytest.raises(
            ValueError, match="cannot be opened: .*; if the weights have moved, add --weights"
        ):
            run(capsys, "search", file, query)
        assert run(capsys, "search", file, query, "--weights", copy)[0] == 0
    finally:
        shutil.move(copy, features)
