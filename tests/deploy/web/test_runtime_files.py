import sys

import pytest

from vit_tf.deploy.web import runtime_files
from vit_tf.deploy.web.runtime_files import SCRIPT, WEBASSEMBLY, load_runtime_files

SCRIPT_TEXT = b"/*!\n * ONNX Runtime Web v1.2.3\n */"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setattr(runtime_files, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path):
    """A folder like that of the npm package."""
    (tmp_path / "package" / "dist").mkdir(parents=True)
    (tmp_path / "package" / "dist" / SCRIPT).write_bytes(SCRIPT_TEXT)
    (tmp_path / "package" / "dist" / WEBASSEMBLY).write_bytes(b"\0asm")
    return tmp_path / "package"


def fake_npm(folder, monkeypatch, commands):
    """Puts a program called npm into the search path, and nothing else."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!{sys.executable}\nimport sys\n{commands}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_local_copy(package):
    for folder in (package, package / "dist", str(package)):
        files = load_runtime_files(folder)
        assert (files.version, files.script, files.webassembly) == ("1.2.3", SCRIPT_TEXT, b"\0asm")


def test_folder_that_is_no_copy(package):
    (package / "dist" / WEBASSEMBLY).unlink()
    with pytest.raises(ValueError, match=r"is no copy of ONNX Runtime Web: expected the npm package"):
        load_runtime_files(package)


def test_without_npm(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"npm, .* is missing: install Node\.js, or give .*--onnxruntime-web"
    ):
        load_runtime_files()
    assert not cache.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a script")
@pytest.mark.parametrize(
    "commands, problem",
    [
        ("sys.exit('npm error code ENOTFOUND\\nnpm error network request to ... failed')", "ENOTFOUND"),
        ("", "no archive"),
        ("open(sys.argv[2].replace('@', '-') + '.tgz', 'w').write('no archive')", "checksum"),
    ],
    ids=["an error", "nothing", "another file"],
)
def test_failing_npm(commands, problem, cache, tmp_path, monkeypatch):
    fake_npm(tmp_path / "bin", monkeypatch, commands)
    with pytest.raises(ValueError, match=problem) as error:
        load_runtime_files()
    assert "\n" not in str(error.value)
    assert not list(cache.iterdir())


def test_damaged_cache_is_downloaded_again(cache, tmp_path, monkeypatch):
    cache.mkdir()
    archive = cache / f"onnxruntime-web-{runtime_files.VERSION}.tgz"
    archive.write_bytes(b"half an archive")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="npm, which downloads"):
        load_runtime_files()
