import json
import logging
import subprocess
import sys

import huggingface_hub
import keras
import numpy as np
import pytest
from huggingface_hub import constants, errors
from safetensors.numpy import save_file
from support.tensors import assert_equal, fails

from vit_tf.hub.sources import open_checkpoint, read_source_config

CONFIG = {"architecture": "vit_tiny_patch16_224", "num_classes": 7}


def make_folder(folder, arrays, name="model.safetensors", preprocessor=None):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    if name:
        save_file(arrays, folder / name)
    return folder


def make_shards(folder, arrays):
    make_folder(folder, {}, name=None)
    weight_map = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(arrays)}
    for part in set(weight_map.values()):
        save_file({n: arrays[n] for n in arrays if weight_map[n] == part}, folder / part)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras imports PyTorch itself then")
def test_pytorch_is_not_imported():
    program = "import sys, vit_tf.hub; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_paths_and_endings(tmp_path, arrays):
    missing = tmp_path / "missing.npz"
    fails(missing, repr(str(missing)), "no file or folder", "hf:owner/name")
    fails("google/vit-base-patch16-224", "no file or folder", "hf:owner/name")
    fails("a\0b", "no file or folder")
    fails("a" * 300, "no file or folder")
    (tmp_path / "a.h5").write_bytes(b"x")
    fails(tmp_path / "a.h5", "must end in .safetensors, .npz, .pth, .pt, .bin", "a.h5")
    for ending in (".safetensors", ".npz", ".pth", ".pt", ".bin"):
        (tmp_path / f"empty{ending}").write_bytes(b"")
        fails(tmp_path / f"empty{ending}", f"empty{ending}", "is empty")
    save_file({}, tmp_path / "none.safetensors")
    fails(tmp_path / "none.safetensors", "holds no tensors")
    save_file(arrays, tmp_path / "A.SafeTensors")
    assert_equal(open_checkpoint(tmp_path / "A.SafeTensors").tensors, arrays)


# Folders ------------------------------------------------------------------------------------------


def test_folder(tmp_path, arrays):
    folder = make_folder(tmp_path / "vit", arrays, preprocessor={"image_mean": [0.5]})
    (folder / "pytorch_model.bin").write_bytes(b"not looked at")
    opened = open_checkpoint(folder)
    assert (opened.source, opened.path) == (str(folder), folder / "model.safetensors")
    assert (opened.config, opened.preprocessor) == (CONFIG, {"image_mean": [0.5]})
    assert_equal(opened.tensors, arrays)
    assert read_source_config(folder) == (CONFIG, {"image_mean": [0.5]})


@pytest.mark.parametrize("name", ["other.safetensors", "other.npz"])
def test_folder_with_one_other_file(tmp_path, arrays, name):
    folder = make_folder(tmp_path / "vit", {}, name=None)
    assert read_source_config(folder) == (CONFIG, {})  # needs no weights
    fails(folder, "must hold one of model.safetensors, ", "got none")
    np.savez(folder / name, **arrays) if name.endswith(".npz") else save_file(arrays, folder / name)
    opened = open_checkpoint(folder)
    assert (opened.path, opened.preprocessor) == (folder / name, {})
    assert_equal(opened.tensors, arrays)
    for i in range(14):
        (folder / f"more{i:02}.npz").write_bytes(b"x")
    message = fails(folder, "more00.npz, more01.npz", "(15 in all)", "by its own path")
    assert "more09.npz" in message and "more10.npz" not in message


def test_folder_of_a_run(tmp_path, arrays):
    inside = make_folder(tmp_path / "run" / "model", {}, name=None)
    fails(tmp_path / "run", str(inside), "must hold one of model.safetensors, ", "got none")
    save_file(arrays, inside / "other.safetensors")
    opened = open_checkpoint(tmp_path / "run")
    assert (opened.path, opened.config) == (inside / "other.safetensors", CONFIG)
    assert_equal(opened.tensors, arrays)
    assert read_source_config(tmp_path / "run") == (CONFIG, {})


def test_folder_with_a_torch_file(tmp_path, arrays, torch):
    folder = make_folder(tmp_path / "vit", {}, name=None)
    torch.save({name: torch.from_numpy(a) for name, a in arrays.items()}, folder / "pytorch_model.bin")
    (folder / "training_args.bin").write_bytes(b"not looked at")
    assert_equal(open_checkpoint(folder).tensors, arrays)


def test_folder_without_config(tmp_path, arrays):
    folder = make_folder(tmp_path / "vit", arrays)
    (folder / "config.json").unlink()
    fails(folder, "has no config.json", "can be given by its own path")
    with pytest.raises(ValueError, match="has no config.json"):
        read_source_config(folder)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "is not JSON"),
        (b"{'a': 1}", "is not JSON"),
        (b"\xff\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'["a"]', "must hold a JSON object, got list"),
        (b"null", "must hold a JSON object, got NoneType"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_config_that_is_no_object(tmp_path, arrays, name, content, reason):
    folder = make_folder(tmp_path / "vit", arrays)
    (folder / name).write_bytes(content)
    fails(folder, name, reason)
    with pytest.raises(ValueError, match=reason):
        read_source_config(folder)


def test_shards(tmp_path, arrays):
    make_shards(tmp_path / "vit", arrays)
    opened = open_checkpoint(tmp_path / "vit")
    assert opened.path.name == "model.safetensors.index.json" and opened.config == CONFIG
    assert_equal(opened.tensors, arrays)


def test_shards_relative_to_the_working_folder(tmp_path, arrays, monkeypatch):
    make_shards(tmp_path / "vit", arrays)
    monkeypatch.chdir(tmp_path / "vit")
    assert_equal(open_checkpoint(".").tensors, arrays)


@pytest.mark.parametrize("link", [False, True])
def test_shards_stay_in_their_folder(tmp_path, arrays, link):
    weight_map = make_shards(tmp_path / "vit", arrays)
    save_file(arrays, tmp_path / "outside.safetensors")
    outside = str(tmp_path / "outside.safetensors")
    for part in (
        "../outside.safetensors",
        outside,
        "..\\outside.safetensors",
        "C:a.safetensors",
        3,
        None,
        ["a"],
    ):
        write_index(tmp_path / "vit", weight_map | {"scale": part})
        fails(tmp_path / "vit", "must name plain .safetensors files")
    (tmp_path / "vit/link.safetensors").symlink_to("model-0.safetensors" if link else outside)
    write_index(tmp_path / "vit", {"cls_token": "link.safetensors"})
    if link:  # to a file beside it
        assert_equal(open_checkpoint(tmp_path / "vit").tensors, {"cls_token": arrays["cls_token"]})
    else:
        fails(tmp_path / "vit", "link.safetensors", "link out of its folder")


def test_shards_that_lack_something(tmp_path, arrays):
    weight_map = make_shards(tmp_path / "vit", arrays)
    write_index(tmp_path / "vit", weight_map | {f"x{i:02}": "model-0.safetensors" for i in range(30)})
    message = fails(tmp_path / "vit", "not in their files: x00, x01", "(30 in all)")
    assert "x09" in message and "x10" not in message
    (tmp_path / "vit/model-1.safetensors").unlink()
    fails(tmp_path / "vit", "has no model-1.safetensors")
    for content in ({}, [], "text", None):
        write_index(tmp_path / "vit", content)
        fails(tmp_path / "vit", "index.json", "`weight_map`")


def test_shards_of_pytorch(tmp_path, arrays, torch):
    folder = make_folder(tmp_path / "vit", {}, name=None)
    weight_map = {name: f"pytorch_model-{i % 2}.bin" for i, name in enumerate(arrays)}
    for part in set(weight_map.values()):
        inside = {n: torch.from_numpy(arrays[n]).half() for n in arrays if weight_map[n] == part}
        torch.save(inside, folder / part)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    opened = open_checkpoint(folder)
    assert opened.path == index and opened.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(opened.tensors[name].load(), array.astype("float16"))
    index.write_text(json.dumps({"weight_map": weight_map | {"scale": "../pytorch_model-0.bin"}}))
    fails(folder, "must name plain .bin files, got '../pytorch_model-0.bin'")
    index.write_text(json.dumps({"weight_map": weight_map | {"scale": "lost.bin"}}))
    fails(folder, "has no lost.bin, which pytorch_model.bin.index.json names: download or copy it there")


# The hub ------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder that plays the hub: hub/owner/name/revision/file; `hub.calls` lists the questions."""
    calls = []

    def download(repository, name, *, revision=None):
        calls.append((repository, name, revision))
        path = tmp_path / "hub" / repository / (revision or "main") / name
        if not path.is_file():
            raise errors.EntryNotFoundError.__new__(errors.EntryNotFoundError, "404")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return calls


def test_hub(tmp_path, arrays, hub):
    make_folder(tmp_path / "hub/a/b-c.d/main", arrays, preprocessor={"size": 7})
    opened = open_checkpoint("hf:a/b-c.d")
    assert (opened.source, opened.config, opened.preprocessor) == ("hf:a/b-c.d", CONFIG, {"size": 7})
    assert_equal(opened.tensors, arrays)
    assert [name for _, name, _ in hub] == ["config.json", "preprocessor_config.json", "model.safetensors"]
    hub.clear()
    assert read_source_config("hf:a/b-c.d") == (CONFIG, {"size": 7})
    assert [name for _, name, _ in hub] == ["config.json", "preprocessor_config.json"]


def test_hub_revision_and_shards(tmp_path, arrays, hub):
    make_shards(tmp_path / "hub/a/b/refs/pr/1", arrays)
    opened = open_checkpoint("hf:a/b@refs/pr/1")
    assert_equal(opened.tensors, arrays)
    assert opened.preprocessor == {} and {revision for *_, revision in hub} == {"refs/pr/1"}


def test_hub_without_weights_or_config(tmp_path, hub):
    make_folder(tmp_path / "hub/a/b/main", {}, name=None)
    fails("hf:a/b", "no weights", "pytorch_model.bin", "hf:a/b", "no such file")
    (tmp_path / "hub/a/b/main/config.json").unlink()
    fails("hf:a/b", "config.json of hf:a/b", "no such file")


@pytest.mark.parametrize(
    "name",
    ["hf:", "hf:a", "hf:a/b/c", "hf://a/b", "hf:a/b@", "hf:a/b@x y", "hf:../b", "hf:a/b@../x", "hf:a/é"],
)
def test_malformed_hub_names(hub, name):
    fails(name, repr(name), "hf:owner/name@revision")
    with pytest.raises(ValueError, match="hf:owner/name"):
        read_source_config(name)
    assert not hub


@pytest.mark.parametrize(
    "kind, reason",
    [
        (errors.RepositoryNotFoundError, "no such repository"),
        (errors.GatedRepoError, "gated: accept its terms on huggingface.co/a/b"),
        (errors.RevisionNotFoundError, "no revision 'v1'"),
        (errors.HfHubHTTPError, "cannot be downloaded: what the library says"),
        (errors.HFValidationError, "cannot be downloaded: what the library says"),
        (OSError, "cannot be downloaded: what the library says"),
        (RuntimeError, "cannot be downloaded: what the library says"),
    ],
)
def test_hub_errors(monkeypatch, kind, reason):
    def download(*args, **kwargs):
        error = kind.__new__(kind)  # made by hand, as the library makes it of an answer of the hub
        error.args = ("what the\nlibrary says",)
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    fails("hf:a/b@v1", "config.json of hf:a/b@v1", reason)


def test_hub_without_network(monkeypatch):
    logger = logging.getLogger("huggingface_hub.utils._http")

    def download(*args, **kwargs):
        assert not logger.isEnabledFor(logging.WARNING)  # of each retry
        raise errors.LocalEntryNotFoundError("not in the cache") from OSError("name resolution failed")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    fails("hf:a/b", "not in the cache", "the hub cannot be reached (name resolution failed)")
    assert logger.isEnabledFor(logging.WARNING)


@pytest.fixture
def offline_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_hub_offline_with_an_empty_cache(offline_cache):
    fails("hf:a/b", "config.json of hf:a/b", "not in the cache", "HF_HUB_OFFLINE is set")


@pytest.mark.parametrize("sharded", [False, True])
def test_hub_offline_with_a_cache(offline_cache, arrays, sharded, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = offline_cache / "models--a--b"
    snapshot = repository / "snapshots" / commit
    if sharded:
        make_shards(snapshot, arrays)
    else:
        make_folder(snapshot, arrays)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    (repository / "blobs").mkdir()
    for i, path in enumerate(sorted(snapshot.iterdir())):  # links, as the library makes them
        path.rename(repository / "blobs" / str(i))
        path.symlink_to(f"../../blobs/{i}")
    monkeypatch.chdir(snapshot)
    for source in ("hf:a/b", f"hf:a/b@{commit}", snapshot, "."):
        opened = open_checkpoint(source)
        assert (opened.config, opened.preprocessor) == (CONFIG, {})
        assert_equal(opened.tensors, arrays)
    fails("hf:a/b@v2", "hf:a/b@v2", "HF_HUB_OFFLINE is set")
