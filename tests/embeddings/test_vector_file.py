"""Files of embeddings and the journal that they come from: round trips, damage, kills, a full disk."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from vit_tf.embeddings import Embeddings, VectorInfo, read_embeddings, write_embeddings
from vit_tf.embeddings.vector_file import read_parquet
from vit_tf.embeddings.vector_journal import journal_folder, opened
from vit_tf.files import read_json, write_json

INFO = VectorInfo(
    source="hf:owner/name",
    model=None,
    variant="vit_tiny_patch16_224",
    pooling="cls+avg",
    preprocessing=dict(image_size=[8, 12], mean=[0.5, 0.5, 0.5]),
    num_features=6,
    normalized=False,
    dtype="float32",
    folder="/photos",
    probe=(1.0, -2.0, 3.0, 0.5, 0.25, 4.0),
)
PATHS = ["cat/1.jpg", "cat/ü 2.jpg", 'dog/a\n"b",.png', "x" * 200]
LABELS = ["cat", "cat", "dog", None]


def make(dtype="float32", count=4):
    vectors = np.random.default_rng(2).normal(size=(count, 6)).astype(dtype)
    info = VectorInfo.from_dict(INFO.to_dict() | {"dtype": dtype})
    return Embeddings(info, (PATHS * count)[:count], (LABELS * count)[:count], vectors)


def assert_equal(a, b):
    assert a.info == b.info and list(a.paths) == list(b.paths) and list(a.labels) == list(b.labels)
    assert a.vectors.dtype == b.vectors.dtype
    np.testing.assert_array_equal(a.vectors, b.vectors)


@pytest.mark.parametrize("name", ["x.npz", "x.parquet", "X.NPZ"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_round_trip(tmp_path, name, dtype):
    embeddings = make(dtype)
    write_embeddings(tmp_path / name, embeddings)
    assert_equal(read_embeddings(tmp_path / name), embeddings)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert embeddings.file(0).as_posix() == "/photos/cat/1.jpg"
    assert embeddings.file(0, tmp_path) == tmp_path / "cat" / "1.jpg"


def test_many_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("vit_tf.embeddings.vector_file.ROWS_AT_ONCE", 7)
    embeddings = make(count=40)
    write_embeddings(tmp_path / "x.parquet", embeddings)
    assert_equal(read_embeddings(tmp_path / "x.parquet"), embeddings)


def test_other_libraries_read_the_files(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    embeddings = make()
    write_embeddings(tmp_path / "x.parquet", embeddings)
    write_embeddings(tmp_path / "x.npz", embeddings)
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["path", "label", "vector"] and table["label"].to_pylist() == LABELS
    np.testing.assert_array_equal(table["vector"].to_pylist(), embeddings.vectors)
    assert json.loads(table.schema.metadata[b"vit_tf"]) == json.loads(json.dumps(INFO.to_dict()))
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["path"].tolist() == PATHS and arrays["label"].tolist() == ["cat", "cat", "dog", ""]
        np.testing.assert_array_equal(arrays["vector"], embeddings.vectors)


def test_files_that_are_no_embeddings(tmp_path):
    for name, data in (("a.npz", b"words"), ("b.parquet", b"words"), ("c.npz", b""), ("d.parquet", b"")):
        (tmp_path / name).write_bytes(data)
    np.savez(tmp_path / "e.npz", x=np.zeros(3))
    np.savez(tmp_path / "f.npz", path=["a"], label=[""], vector=np.zeros((1, 6)), vit_tf="{}")
    arrays = dict(path=["a"], label=["", ""], vit_tf=json.dumps(INFO.to_dict()))
    np.savez(tmp_path / "g.npz", vector=np.zeros((1, 6), "float32"), **arrays)
    np.savez(tmp_path / "h.npz", vector=np.zeros((1, 7), "float32"), **arrays | {"label": [""]})
    np.savez(tmp_path / "i.npz", vector=np.full((1, 6), np.inf, "float32"), **arrays | {"label": [""]})
    np.savez(tmp_path / "j.npz", vector=np.zeros((1, 6)), **arrays | {"path": np.array([1])})
    write_embeddings(tmp_path / "whole.npz", make())
    write_embeddings(tmp_path / "whole.parquet", make())
    for name in ("whole.npz", "whole.parquet"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(data[: len(data) // 2])
        (tmp_path / name).unlink()
    for path in sorted(tmp_path.iterdir()):
        message = f"{path.name}' is no embeddings file, which `vit-tf embed` writes: "
        with pytest.raises(ValueError, match=message) as caught:
            read_embeddings(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        read_embeddings(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="must end in .parquet or .npz"):
        read_embeddings(tmp_path / "x.csv")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ValueError, match="a folder: expected a regular file"):
        read_embeddings(tmp_path / "folder.npz")


def test_a_parquet_file_of_others(tmp_path):
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.table({"path": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="is no embeddings file, .*: its metadata has no entry 'vit_tf'"):
        read_embeddings(tmp_path / "x.parquet")
    table = pyarrow.table({"path": ["a"]}).replace_schema_metadata({"vit_tf": json.dumps(INFO.to_dict())})
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"it has the columns \['path'\]"):
        read_parquet(tmp_path / "x.parquet")


def test_a_missing_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("vit_tf.deploy.extras.find_spec", lambda name: None)
    message = r"the file 'x.parquet' needs pyarrow: pip install 'vit_tf\[search\]'"
    for function in (read_embeddings, lambda path: write_embeddings(path, make())):
        with pytest.raises(ValueError, match=message):
            function(tmp_path / "x.parquet")
    write_embeddings(tmp_path / "x.npz", make())


def test_descriptions():
    content = INFO.to_dict()
    assert VectorInfo.from_dict(json.loads(json.dumps(content))) == INFO
    for field, value in (
        ("source", None),
        ("pooling", 3),
        ("dtype", "float64"),
        ("num_features", 0),
        ("normalized", 1),
        ("preprocessing", [1]),
        ("preprocessing", {"size": 3}),
        ("probe", [1.0]),
        ("probe", ["a"] * 6),
    ):
        with pytest.raises(ValueError, match=f"`{field}`"):
            VectorInfo.from_dict(content | {field: value})
    with pytest.raises(ValueError, match="it has the fields"):
        VectorInfo.from_dict({"source": "a"})


def test_other_models():
    for changes, message in (
        (dict(variant="vit_b16"), "with variant 'vit_tiny_patch16_224', and not 'vit_b16'"),
        (dict(pooling=None), "with pooling 'cls.avg', and not None"),
        (dict(preprocessing={"image_size": [9, 9]}), "with preprocessing"),
        (dict(num_features=1, probe=[1.0]), "with num_features 6, and not 1"),
        (dict(probe=[1.0] * 6), r"with other weights \('hf:owner/name', .* agree to 0\.\d\d\d\)"),
    ):
        other = VectorInfo.from_dict(INFO.to_dict() | changes)
        with pytest.raises(ValueError, match=f"'x.npz' was embedded .*{message}"):
            INFO.check_same(other, "x.npz")
    close = np.array(INFO.probe) * (1 + 1e-3 * np.arange(6))
    INFO.check_same(VectorInfo.from_dict(INFO.to_dict() | {"probe": close.tolist(), "dtype": "float16"}), "x")
    with pytest.raises(ValueError, match="with folder '/photos', and not '/other'"):
        INFO.check_same(VectorInfo.from_dict(INFO.to_dict() | {"folder": "/other"}), "x", strict=True)


# ---------------------------------------------------------------------------------------------------
# The journal
# ---------------------------------------------------------------------------------------------------
def test_a_journal_becomes_a_file(tmp_path):
    out, embeddings = tmp_path / "x.npz", make()
    with opened(out, INFO, resume=False) as journal:
        journal.append(PATHS[:3], LABELS[:3], embeddings.vectors[:3])
    assert not out.exists() and journal_folder(out).is_dir()
    with opened(out, INFO, resume=True) as journal:
        assert journal.paths == PATHS[:3] and journal.labels == LABELS[:3]
        journal.append(PATHS[3:], LABELS[3:], embeddings.vectors[3:])
        journal.write(out)
        journal.remove()
    assert_equal(read_embeddings(out), embeddings)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_rows_that_are_not_whole_are_cut_off(tmp_path):
    out, embeddings = tmp_path / "x.npz", make()
    folder = journal_folder(out)
    with opened(out, INFO, resume=False) as journal:
        journal.append(PATHS, LABELS, embeddings.vectors)
    rows, vectors = (folder / "rows.jsonl").read_bytes(), (folder / "vectors.bin").read_bytes()
    ends = [i + 1 for i, byte in enumerate(rows) if byte == ord("\n")]
    for row_bytes in (0, 5, ends[0] - 1, ends[0], ends[2] + 1, len(rows)):
        for vector_bytes in (0, 23, 24, 60, len(vectors)):
            (folder / "rows.jsonl").write_bytes(rows[:row_bytes])
            (folder / "vectors.bin").write_bytes(vectors[:vector_bytes])
            count = min(sum(end <= row_bytes for end in ends), vector_bytes // 24)
            with opened(out, INFO, resume=True) as journal:
                assert journal.paths == PATHS[:count]
                journal.append(PATHS[count:], LABELS[count:], embeddings.vectors[count:])
            assert (folder / "rows.jsonl").read_bytes() == rows
            assert (folder / "vectors.bin").read_bytes() == vectors


def test_without_resume_a_journal_begins_again(tmp_path):
    out = tmp_path / "x.npz"
    with opened(out, INFO, resume=False) as journal:
        journal.append(PATHS, LABELS, make().vectors)
    with opened(out, INFO, resume=False) as journal:
        assert journal.paths == []
    assert not journal_folder(out).exists()  # nothing was embedded


def test_journals_that_cannot_be_continued(tmp_path):
    out = tmp_path / "x.npz"
    folder = journal_folder(out)
    with opened(out, INFO, resume=False) as journal:
        journal.append(PATHS, LABELS, make().vectors)
        with pytest.raises(ValueError, match="another process is embedding into .*x.npz"):
            with opened(out, INFO, resume=True):
                pass
    other = VectorInfo.from_dict(INFO.to_dict() | {"dtype": "float16"})
    with pytest.raises(ValueError, match="x.npz.part' was embedded with dtype 'float32', and not 'float16'"):
        with opened(out, other, resume=True):
            pass
    assert len((folder / "rows.jsonl").read_text().splitlines()) == 4
    (folder / "rows.jsonl").write_text("words\n")
    with pytest.raises(ValueError, match="rows.jsonl' is damaged: .*add --force"):
        with opened(out, INFO, resume=True):
            pass
    write_json(folder / "info.json", read_json(folder / "info.json") | {"dtype": "float8"})
    with pytest.raises(ValueError, match="`dtype` must be one of"):
        with opened(out, INFO, resume=True):
            pass


def test_numbers_that_float16_does_not_hold(tmp_path):
    info = VectorInfo.from_dict(INFO.to_dict() | {"dtype": "float16"})
    with opened(tmp_path / "x.npz", info, resume=False) as journal:
        with pytest.raises(ValueError, match="a vector is not finite as float16: use --dtype float32"):
            journal.append(["a"], [None], np.full((1, 6), 1e5))
        assert journal.paths == []


@pytest.mark.parametrize("name", ["x.npz", "x.parquet"])
def test_a_full_disk_leaves_the_journal(tmp_path, name):
    """A limit of the file size stands for the full disk."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from test_vector_file import INFO, make
from vit_tf.embeddings.vector_journal import opened
with opened({str(tmp_path / name)!r}, INFO, resume=False) as journal:
    embeddings = make(count=400)
    journal.append(embeddings.paths, embeddings.labels, embeddings.vectors)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    try:
        journal.write({str(tmp_path / name)!r})
    except OSError as error:
        print(error.errno)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert result.stdout == f"{errno.EFBIG}\n", result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.part"]
    with opened(tmp_path / name, INFO, resume=True) as journal:
        assert len(journal.paths) == 400
