"""How many requests per second `vit-tf serve` answers, and how long they take.

    python benchmarks/serve.py                          # the packaged CIFAR-10 model
    python benchmarks/serve.py exported/ --image cat.jpg --clients 1 8 32 --seconds 10

The service runs in a process of its own, and the clients in this one, on the same cores. Each client has one
connection over the loopback interface and posts the image again as soon as it has the answer. The table has
the median and the 99th percentile of the time from a request to its answer. At the end the service is stopped
while all clients still post: every request that it has accepted must be answered.
"""

import argparse
import asyncio
import io
import re
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from vit_tf.checks import check_number
from vit_tf.commands import parser as cli

BOUNDARY = b"vit-tf-benchmark"


def main(arguments=None):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="cifar10", help="what `vit-tf serve` takes")
    parser.add_argument("--image", help="file to post; default: a PNG of noise, 32x32 pixels")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 32, 64], help="at a time")
    parser.add_argument(
        "--seconds", type=float, default=5, help="per number of clients, after a second's warm-up"
    )
    parser.add_argument("--options", default="", help="further options of `vit-tf serve`, in one string")
    args = parser.parse_args(arguments)
    cli.check_counts(args, "clients")
    check_number("--seconds", args.seconds, "(0, inf)")
    request = make_request(image_bytes(args.image))
    command = [sys.executable, "-m", "vit_tf.commands.main", "serve", args.source, "--port", "0"]
    with subprocess.Popen([*command, *args.options.split()], stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            address = re.search(r":(\d+),", line)
            if address is None:
                raise ValueError("the service did not start: see its message above")
            port = int(address[1])
            print(line.strip())
            print(
                "| clients | requests/s | p50, ms | p99, ms | status 503 | other errors |\n|---:|"
                + "---:|" * 5
            )
            for count in args.clients:
                asyncio.run(measure(port, request, count, args.seconds))
            asyncio.run(stop(process, port, request, max(args.clients)))
        finally:
            process.kill()


def image_bytes(path):
    if path:
        with open(path, "rb") as file:
            return file.read()
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), "uint8")).save(file, "PNG")
    return file.getvalue()


def make_request(image):
    """Returns the bytes of a POST of one file."""
    disposition = b'Content-Disposition: form-data; name="file"; filename="a"'
    body = b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (BOUNDARY, disposition, image, BOUNDARY)
    kind = b"Content-Type: multipart/form-data; boundary=" + BOUNDARY
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n%b\r\nContent-Length: %d\r\n\r\n" % (
        kind,
        len(body),
    )
    return head + body


class Client:
    """One connection, which is made anew when the service closes it. httpx takes longer than the service."""

    def __init__(self, port, request):
        self.port = port
        self.request = request
        self.writer = None

    async def post(self):
        """Posts the image and returns the status; a ConnectionRefusedError if nobody listens."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(self.request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        await self.reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
        if b"connection: close" in head:
            self.close()
        return int(head[9:12])

    def close(self):
        if self.writer is not None:
            self.writer.close()
            self.writer = None


async def measure(port, request, count, seconds):
    """Prints the row of the table for a number of clients."""
    answers = []  # (status, seconds)
    start = time.perf_counter() + 1
    end = start + seconds

    async def post_on():
        client = Client(port, request)
        while (before := time.perf_counter()) < end:
            try:
                status = await client.post()
            except (OSError, asyncio.IncompleteReadError):
                client.close()
                status = 0
            if before >= start:
                answers.append((status, time.perf_counter() - before))
        client.close()

    await asyncio.gather(*(post_on() for _ in range(count)))
    statuses = [status for status, _ in answers]
    good = [duration for status, duration in answers if status == 200]
    p50, p99 = 1000 * np.percentile(good, (50, 99))
    busy, others = statuses.count(503), len(answers) - len(good) - statuses.count(503)
    print(f"| {count} | {len(good) / seconds:,.0f} | {p50:.1f} | {p99:.1f} | {busy} | {others} |", flush=True)


async def stop(process, port, request, count):
    """Stops the service while clients post, and prints what became of their requests."""
    answered, lost = 0, 0

    async def post_on():
        nonlocal answered, lost
        client = Client(port, request)
        while True:
            try:
                status = await client.post()
                answered += status == 200
            except ConnectionRefusedError:
                return
            except (OSError, asyncio.IncompleteReadError):
                client.close()
                lost += 1

    clients = [asyncio.ensure_future(post_on()) for _ in range(count)]
    await asyncio.sleep(1)
    before, start = answered, time.perf_counter()
    process.send_signal(signal.SIGTERM)
    await asyncio.gather(*clients)
    code = await asyncio.to_thread(process.wait, 60)
    print(
        f"stop with {count} clients: {answered - before} more requests answered, {lost} lost, exit code "
        f"{code} after {time.perf_counter() - start:.2f} s"
    )


if __name__ == "__main__":
    cli.run(main)
