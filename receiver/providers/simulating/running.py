"""Runs a simulated world: gives it a clock, threads that send, and a port for its API."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import httpx
from flask import Flask, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from receiver import times
from receiver.outgoing import http_client, read_at_most, time_limit
from receiver.providers.simulating.world import Post, SimulatedWorld

#: Seconds that a provider waits for an answer.
ANSWER_WITHIN = 5.0
#: Bytes of it that are read.
LARGEST_ANSWER = 64 * 1024
#: Tries that are on their way at once.
_POSTERS = 32

W = TypeVar("W", bound=SimulatedWorld)


class Running(Generic[W]):
    """Runs a world in real time, or faster.

    :param speed: seconds of the world for each second of the clock on the wall.
    """

    def __init__(self, world: W, *, speed: float = 1.0) -> None:
        self.world = world
        #: Guards the world.
        self.lock = threading.RLock()
        self.speed = speed
        #: How many requests the account made, and how many were refused for their number.
        self.requests, self.limited = 0, 0
        self._recent: deque[int] = deque()
        self._started = time.monotonic()
        self._client = http_client(timeout=ANSWER_WITHIN)
        self._posters = ThreadPoolExecutor(_POSTERS, thread_name_prefix="poster")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
        self._on_the_way = 0

    def now(self) -> int:
        """The world's time."""
        gone = (time.monotonic() - self._started) * self.speed
        return self.world.began + int(gone * times.SECOND)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()  # else it would hand out work to posters that are gone
        self._posters.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    @property
    def at_rest(self) -> bool:
        """Nothing will happen any more unless somebody sends something."""
        with self.lock:
            return self.world.at_rest and not self._on_the_way

    def _run(self) -> None:
        while not self._stopped.wait(0.005):
            with self.lock:
                posts = self.world.advance(self.now())
                self._on_the_way += len(posts)
            for post in posts:
                self._posters.submit(self._post, post)

    def _post(self, post: Post) -> None:
        outcome, began = "lost on the way", time.monotonic()
        try:
            if not post.lost:
                outcome = self.send(post)
        finally:
            unseen = post.lost or post.answer_lost
            took = ANSWER_WITHIN if unseen else time.monotonic() - began
            with self.lock:
                self.world.pass_time(self.now())
                self.world.answered(post, outcome, int(took * 1000))
                self._on_the_way -= 1

    def send(self, post: Post) -> str:
        """Send a request, and say what came back."""
        try:
            with (
                time_limit(ANSWER_WITHIN),
                self._client.stream(
                    "POST", post.event.url, content=post.event.body, headers=post.headers
                ) as answer,
            ):
                read_at_most(answer, LARGEST_ANSWER)
        except httpx.TimeoutException:
            return "no answer in time"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            return f"no connection ({type(error).__name__})"
        return str(answer.status_code)

    def count(self, most: int) -> bool:
        """Count a request to the API.

        :param most: requests a minute.
        :returns: whether it is one too many.
        """
        now = self.now()
        while self._recent and self._recent[0] <= now - times.MINUTE:
            self._recent.popleft()
        self.requests += 1
        if len(self._recent) >= most:
            self.limited += 1
            return True
        self._recent.append(now)
        return False

    @property
    def free_at(self) -> int:
        """When the next request to the API may be made, after one too many."""
        return (self._recent[0] if self._recent else self.now()) + times.MINUTE


def add_truth(api: Flask, simulator: Running[W]) -> None:
    """Answer `GET /truth` (what really became of everything) and `GET /clock` (for receivers, which
    ask by the same clock: see `clock.py`). Nobody needs credentials for them."""
    world = simulator.world

    def answer(told: Mapping[str, object]) -> Response:
        return Response(json.dumps(told), mimetype="application/json")

    @api.get("/truth")
    def truth() -> Response:
        with simulator.lock:
            world.pass_time(simulator.now())
            told = {"requests": simulator.requests, "limited": simulator.limited}
            return answer({**world.truth(), "at_rest": simulator.at_rest, "api": told})

    @api.get("/clock")
    def clock() -> Response:
        now, speed = times.iso(simulator.now()), simulator.speed
        return answer({"simulator": "not the provider", "speed": speed, "now": now})


def serve(simulator: Running[W], api: Flask, host: str, port: int) -> Callable[[], None]:
    """Start an API and what its world does by itself; returns what ends them.

    :raises OSError: if it cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # A socket of our own: about a port that is taken Werkzeug prints words, and exits.
    with socket.create_server((host, port), family=family) as listener:
        server = make_server(
            host,
            port,
            api,
            threaded=True,
            request_handler=_Quiet,
            fd=listener.fileno(),
        )
    thread = threading.Thread(target=server.serve_forever, name="api", daemon=True)
    thread.start()
    simulator.start()

    def close() -> None:
        server.shutdown()
        server.server_close()
        simulator.stop()

    return close


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        """Not a line for each request: `GET /truth` tells more."""
