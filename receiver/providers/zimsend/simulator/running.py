"""Runs a simulated ZimSend: gives its world a clock, threads that send, and a limit of requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx

from receiver import times
from receiver.outgoing import http_client, read_at_most, time_limit
from receiver.providers.zimsend.simulator.refusal import ApiRefusal
from receiver.providers.zimsend.simulator.world import Post, World

#: Seconds that the provider waits for an answer.
ANSWER_WITHIN = 5.0
#: Bytes of it that are read.
LARGEST_ANSWER = 64 * 1024
#: Requests a minute for the account.
RATE_LIMIT = 100
#: Tries that are on their way at once.
_POSTERS = 32


class Simulator:
    """Runs a world in real time, or faster.

    :param speed: seconds of the world for each second of the clock on the wall.
    :param credentials: the API key and the client id that are let in.
    """

    def __init__(self, world: World, *, speed: float = 1.0, credentials: tuple[str, str]) -> None:
        self.world = world
        #: Guards the world.
        self.lock = threading.RLock()
        self.speed = speed
        self.credentials = credentials
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

    def admit(self, headers: Mapping[str, str]) -> None:
        """ZimSend's authentication, and its limit of requests.

        :raises ApiRefusal: as documented.
        """
        key, client = headers.get("X-Api-Key"), headers.get("X-Client-Id")
        if not key or not client:
            raise ApiRefusal(400, "MISSING_AUTH_HEADERS", "X-API-Key and X-Client-ID are required")
        if key != self.credentials[0]:
            raise ApiRefusal(401, "INVALID_API_KEY", "The API key is not valid")
        if client != self.credentials[1]:
            raise ApiRefusal(401, "INVALID_CLIENT_ID", "The client id is not valid")
        now = self.now()
        while self._recent and self._recent[0] <= now - times.MINUTE:
            self._recent.popleft()
        self.requests += 1
        if len(self._recent) >= RATE_LIMIT:
            self.limited += 1
            raise ApiRefusal(429, "RATE_LIMIT_EXCEEDED", "More than 100 requests in a minute")
        self._recent.append(now)
