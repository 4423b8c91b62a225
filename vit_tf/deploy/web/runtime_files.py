"""The files of ONNX Runtime Web: from the npm package, or from a local copy of it. Importable without Keras.

npm downloads the package once. The archive stays in the user's cache folder. Each use verifies its checksum.
"""

import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vit_tf.checks import brief, require, shown
from vit_tf.files import atomic_path, cache_folder, read_regular

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
# As in the package's entry in the npm registry.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
SCRIPT = "ort.wasm.bundle.min.mjs"
WEBASSEMBLY = "ort-wasm-simd-threaded.wasm"
BANNER = re.compile(rb"ONNX Runtime Web v([\w.+-]+)")
MOST_BYTES = 256 << 20
TIMEOUT = 900  # seconds
HINT = "give a local copy of the npm package with --onnxruntime-web DIR"


@dataclass(frozen=True)
class RuntimeFiles:
    """ONNX Runtime Web: its version, and the bytes of its module and of its WebAssembly."""

    version: str
    script: bytes
    webassembly: bytes


def load_runtime_files(folder: str | os.PathLike | None = None) -> RuntimeFiles:
    """Returns the files of ONNX Runtime Web.

    Args:
        folder: a local copy of the npm package, of any version from 1.20 on. Default: version `VERSION`, from
            the cache folder or by npm.

    Raises:
        ValueError: `folder` is no copy of the package, npm is missing, or npm cannot download the package.
    """
    if folder is not None:
        return read_folder(Path(folder))
    archive = archive_path()
    try:
        return read_archive(archive)
    except (OSError, ValueError):  # not there yet, or damaged
        download(archive)
    return read_archive(archive)


def prepare_runtime_files(folder: str | os.PathLike | None = None) -> None:
    """Downloads ONNX Runtime Web unless it is in the cache. For the rest see `load_runtime_files`."""
    if folder is not None:
        read_folder(Path(folder))
    elif not archive_path().is_file():
        download(archive_path())


def archive_path():
    return cache_folder() / f"{PACKAGE}-{VERSION}.tgz"


def read_folder(folder):
    """Returns the files of a local copy of the npm package."""
    dist = folder / "dist" if (folder / "dist").is_dir() else folder
    try:
        files = [read_regular(dist / name, MOST_BYTES) for name in (SCRIPT, WEBASSEMBLY)]
    except (OSError, ValueError) as error:
        expected = f"expected the npm package {PACKAGE}, version 1.20 or later, with dist/{SCRIPT}"
        raise ValueError(f"{shown(str(folder))} is no copy of ONNX Runtime Web: {expected}") from error
    return runtime_files(*files)


def read_archive(path):
    """Returns the files in an archive of the npm package, after a comparison of its checksum."""
    content = read_regular(path, MOST_BYTES)
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    require(
        f"sha512-{digest}" == INTEGRITY, f"{str(path)!r} is damaged: its checksum is not that of {PACKAGE}"
    )
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [archive.extractfile(f"package/dist/{name}") for name in (SCRIPT, WEBASSEMBLY)]
        return runtime_files(*(member.read() for member in members if member is not None))


def runtime_files(script, webassembly):
    version = BANNER.search(script[:1000])
    return RuntimeFiles(version[1].decode() if version else "of an unknown version", script, webassembly)


def download(path):
    """Downloads the archive of the npm package, and moves it to `path` if its checksum is right."""
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(f"npm, which downloads {PACKAGE}, is missing: install Node.js, or {HINT}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        options = ["--pack-destination", folder, "--ignore-scripts", "--prefer-offline", "--fetch-retries=1"]
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", *options, "--loglevel=error"]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, cwd=folder, timeout=TIMEOUT, stdin=subprocess.DEVNULL
            )
            problem = npm_problem(result.stderr) if result.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = brief(error, 200)
        archive = Path(folder) / path.name
        if problem or not archive.is_file():
            detail = problem or "it wrote no archive"
            raise ValueError(
                f"npm cannot download {PACKAGE} {VERSION} ({detail}): check the network, or {HINT}"
            )
        read_archive(archive)
        with atomic_path(path) as partial:
            shutil.copyfile(archive, partial)


def npm_problem(text):
    """Returns npm's code of an error, such as "ENOTFOUND", or all it says if there is no code."""
    code = re.search(r"\bcode (\w+)", text)
    return code[1] if code else brief(text, 200)
