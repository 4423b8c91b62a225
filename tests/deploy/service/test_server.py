"""The service in a process of its own, over real connections."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.paths import ROOT
from support.service import finish, image_bytes, noise_bytes, until

from vit_tf.deploy.service.server import address_of, bind

httpx = pytest.importorskip("httpx")
RED = image_bytes("red")
FILE = {"file": ("a.png", RED)}


@contextmanager
def service(seconds=0.0, **settings):
    """A scope in which the service of a `FakePredictor` runs; yields its process, which has `url`."""
    command = [sys.executable, "-m", "support.service", str(seconds), json.dumps(settings)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        process.port = int(process.stdout.readline())
        process.url = f"http://127.0.0.1:{process.port}"
        for _ in range(500):  # it listens soon
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", process.port)):
                    break
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


async def load(process, is_kept_alive, answers, errors):
    """Posts one image after the other until the service is gone."""
    limits = httpx.Limits(max_keepalive_connections=1 if is_kept_alive else 0)
    async with httpx.AsyncClient(limits=limits, timeout=20, trust_env=False) as client:
        while True:
            try:
                answers.append((await client.post(f"{process.url}/predict", files=FILE)).status_code)
            except httpx.ConnectError:
                return  # refused: the client knows that nobody has seen the request
            except httpx.HTTPError as error:
                errors.append(repr(error))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_loses_nothing(number):
    async def main(process):
        answers, errors = [], []
        tasks = [asyncio.ensure_future(load(process, i % 2, answers, errors)) for i in range(24)]
        await until(lambda: len(answers) > 100)
        before = len(answers)
        process.send_signal(number)
        await asyncio.gather(*tasks)
        assert len(answers) >= before + 20  # those in the queue, too
        assert set(answers) == {200} and not errors

    with service(seconds=0.03, batch_size=8, queue=64) as process:
        finish(main(process))
        output, problems = process.communicate(timeout=10)
        assert (process.returncode, output, problems) == (0, "stopped\n", "")


@pytest.mark.slow
def test_overload_is_refused():
    async def main(process):
        async with httpx.AsyncClient(timeout=20, trust_env=False) as client:
            posts = [client.post(f"{process.url}/predict", files=FILE) for _ in range(40)]
            answers = await asyncio.gather(*posts)
            statuses = [answer.status_code for answer in answers]
            assert set(statuses) == {200, 503} and 4 <= statuses.count(200) <= 12
            assert all("retry-after" in each.headers for each in answers if each.status_code == 503)
            health = await client.get(f"{process.url}/health")
            assert health.json()["status"] == "ok"
            assert (await client.post(f"{process.url}/predict", files=FILE)).status_code == 200

    with service(seconds=0.3, batch_size=4, queue=4) as process:
        finish(main(process))


def hostile_bodies():
    """Returns 100 bodies, each (content, headers)."""
    image, big = noise_bytes(90, 90), noise_bytes(1100, 1000)
    claim = bytearray(image)
    claim[16:24] = b"\0\0\xff\xff" * 2  # the size in a PNG's header

    def multipart(data, name="a.png"):
        request = httpx.Request("POST", "http://a", files={"file": (name, data)})
        return request.read(), {"content-type": request.headers["content-type"]}

    def json_body(content):
        return content, {"content-type": "application/json"}

    damaged = [image[:n] + bytes([n]) * 40 + image[n + 40 :] for n in range(8, 33)]
    bodies = [multipart(bytes(data)) for data in (*damaged, claim, big, b"", b"<svg>", bytes(1 << 20))]
    bodies += [multipart(image[: 50 * n], "\x1b[31m\n" * 20) for n in range(20)]
    content, headers = multipart(image)
    bodies += [(content[: len(content) * n // 20], headers) for n in range(20)]
    bodies += [(os.urandom(1000 * n), headers) for n in range(10)]
    bodies += [(content.replace(b"\r\n", end), headers) for end in (b"", b"\n", b"\r")]
    bodies += [
        json_body(text) for text in (b"", b"[" * 500_000, b'{"images": [' + b"{}," * 300_000 + b"{}]}")
    ]
    bodies += [json_body(b'{"images": ["%b"]}' % (b"A" * n)) for n in (0, 1, 4, 700_000)]
    bodies += [json_body(b'{"images": ["http://127.0.0.1/%d"]}' % n) for n in range(7)]
    bodies += [(bytes(n << 20), headers) for n in (3, 40, 60)]
    return bodies


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_hostile_bodies():
    bodies = hostile_bodies()
    assert len(bodies) == 100

    def send(process, client):
        for content, headers in bodies:
            response = client.post(f"{process.url}/predict", content=content, headers=headers)
            assert 400 <= response.status_code < 500, (response.status_code, content[:100])
            reason = response.json()["detail"]
            assert 0 < len(reason) <= 300 and reason.isprintable()
        for data in (b"GET\r\n\r\n", b"\0" * 100, b"GET / HTTP/1.1\r\nA: " + b"a" * 200_000):
            assert raw(process, data).startswith(b"HTTP/1.1 400 ")
        raw(process, b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc", is_cut=True)

    with service(max_body=2 << 20, max_pixels=1_000_000) as process:
        with httpx.Client(trust_env=False, timeout=20) as client:
            for _ in range(2):
                send(process, client)
            before = resident_bytes(process)
            for _ in range(4):
                send(process, client)
            growth = resident_bytes(process) - before
            assert client.post(f"{process.url}/predict", files=FILE).status_code == 200
        assert growth < 6 << 20, growth


def raw(process, data, is_cut=False):
    """Sends bytes over a connection and returns the answer; or leaves at once."""
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as connection:
        connection.sendall(data)
        return b"" if is_cut else connection.recv(1000)


def resident_bytes(process):
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+) kB", text, re.M)[1]) << 10


def test_bind():
    bound = bind("127.0.0.1", 0)
    with bound:
        port = bound.getsockname()[1]
        assert address_of(bound) == f"http://127.0.0.1:{port}"
        bound.listen()
        with pytest.raises(OSError, match=f"in use: 127.0.0.1 port {port}$"):
            bind("127.0.0.1", port)
    with pytest.raises(OSError, match="192.0.2.1 port 80"):
        bind("192.0.2.1", 80)
