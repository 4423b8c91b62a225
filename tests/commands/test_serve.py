import re
import signal
import socket
import subprocess
import sys

import pytest
from support.exported import write_folder
from support.service import noise_bytes

from vit_tf.commands import main as cli
from vit_tf.commands import serve

pytest.importorskip("fastapi")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--port", "70000"], "--port"),
        (["--batch-size", "0"], "--batch-size"),
        (["--queue", "0"], "--queue"),
        (["--queue", "4", "--batch-size", "8"], "queue"),
        (["--threads", "0"], "--threads"),
        (["--max-wait-ms", "-1"], "--max-wait-ms"),
        (["--max-wait-ms", "nan"], "--max-wait-ms"),
        (["--max-body", "0"], "--max-body"),
        (["--max-pixels", "1000"], "--max-pixels"),
        (["--runtime", "openvin"], "openvino"),
    ],
    ids=" ".join,
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        cli.main(["serve", "cifar10", *options])


def test_a_missing_extra(monkeypatch):
    monkeypatch.setattr(serve, "MODULES", ("fastapi", "no_such_module"))
    with pytest.raises(
        ValueError, match=r"^vit-tf serve needs no_such_module: pip install 'vit_tf\[serve\]'$"
    ):
        cli.main(["serve", "cifar10"])


def test_the_source_is_checked(tmp_path):
    with pytest.raises(ValueError, match="nothing"):
        cli.main(["serve", str(tmp_path / "nothing")])


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(OSError, match=f"in use: 127.0.0.1 port {port}"):
            cli.main(["serve", "cifar10", "--port", port])


@pytest.mark.slow
def test_a_run(tmp_path):
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("onnxruntime")
    folder = write_folder(tmp_path / "out")
    command = [sys.executable, "-m", "vit_tf.commands.main", "serve", str(folder), "--port", "0"]
    options = ["--runtime", "onnxruntime", "--threads", "1"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([*command, *options], **pipes) as process:
        line = process.stdout.readline()
        assert line.startswith(f"serving {folder} by onnxruntime at http://127.0.0.1:")
        url = re.search(r"http://[\d.:]+", line)[0]
        file = {"file": ("a.png", noise_bytes(30, 20))}
        transport = httpx.HTTPTransport(retries=50)  # the service listens soon
        with httpx.Client(transport=transport, timeout=20) as client:
            answer = client.post(f"{url}/predict?top=1", files=file)
            assert answer.status_code == 200 and len(answer.json()["results"][0]["predictions"]) == 1
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20) == ("", "") and process.returncode == 0
