import socket

import pytest

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
