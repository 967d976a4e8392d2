"""The simulator over a network, and a customer's web server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from receiver.providers.zimsend.simulator import api as simulator
from receiver.providers.zimsend.simulator.running import Simulator
from receiver.providers.zimsend.simulator.world import (
    World,
)
from tests.server import eventually, free_port


class Hook:
    """A customer's web server in this process; it answers as the test says."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[], int] = lambda: 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((dict(self.headers), body))
                status = hook.answer()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@contextmanager
def running(world: World, speed: float) -> Iterator[httpx.Client]:
    simulated = Simulator(world, speed=speed, credentials=("zs_test_1", "client_1"))
    port = free_port()
    close = simulator.serve(simulated, "127.0.0.1", port)
    headers = {"X-API-Key": "zs_test_1", "X-Client-ID": "client_1"}
    try:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            yield client
    finally:
        close()


def rested(client: httpx.Client, within: float = 60) -> dict[str, Any]:
    """The truth, when nothing will happen any more."""

    def look() -> dict[str, Any] | None:
        try:
            told: dict[str, Any] = client.get("/truth").json()
        except httpx.TransportError:  # it has not started yet
            return None
        return told if told["at_rest"] else None

    told: dict[str, Any] = eventually(look, within)
    return told
