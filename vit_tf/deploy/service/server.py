"""Running the service by uvicorn, with a graceful stop."""

import asyncio
import select
import signal
import socket
from contextlib import contextmanager

import uvicorn

LINGER_SECONDS = 0.3  # for requests that are on their way to open connections
ACCEPT_SECONDS = 1.0


def bind(host, port):
    """Returns a socket that is bound to an address and does not listen yet.

    Raises:
        OSError: the address is in use, is not of this machine, or its name is unknown.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"{error.strerror}: {host} port {port}") from None
    return bound


def address_of(bound):
    """Returns the URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn's server, which answers what it has received before it stops.

    The first SIGTERM or Ctrl-C stops it: no new connections are accepted, responses ask clients to close
    their connections, and all requests in progress are answered. A second Ctrl-C drops them.

    Args:
        app: of `create_app`.
        stop_seconds: seconds until requests in progress are dropped.
    """

    def __init__(self, app, stop_seconds):
        self.service = app.state.service
        config = uvicorn.Config(
            app,
            http="h11",  # limits headers to 64 KiB; httptools has no limit
            ws="none",
            log_config=None,
            log_level="error",  # not a line per damaged request
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=stop_seconds,
        )
        super().__init__(config)

    async def shutdown(self, sockets=None):
        self.service.is_stopping = True
        await self.accept_waiting(sockets)
        for server in self.servers:
            server.close()
        await asyncio.sleep(LINGER_SECONDS)
        await super().shutdown(sockets)

    async def accept_waiting(self, sockets):
        """Accepts the connections that the system has made: closing the sockets would reset them."""
        loop = asyncio.get_running_loop()
        end = loop.time() + ACCEPT_SECONDS
        while select.select(sockets, [], [], 0)[0] and loop.time() < end:
            await asyncio.sleep(0)  # the event loop accepts them

    @contextmanager
    def capture_signals(self):
        """Unlike uvicorn's, does not raise the signal again at the end: a stop is no error."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_service(app, bound):
    """Runs an application of `create_app` on a bound socket until a signal stops it."""
    stop_seconds = round(app.state.service.settings.body_seconds) + 30
    Server(app, stop_seconds).run([bound])
