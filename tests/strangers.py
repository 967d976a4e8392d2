"""Clients that nobody knows and that mean no good, in a process of their own.

    python -m tests.strangers PORT "KIND=COUNT" ...

opens so many connections of each kind, and, once a second, again those that the server has closed.
It prints a line when all are open for the first time. When its standard input ends it sends nothing
more, waits until the server has closed all of them, and prints after how many seconds that was, or
`never`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

from tests.server import ROOT

_HEAD = b"POST /webhooks/zimsend HTTP/1.1\r\nHost: here\r\nX-Webhook-Signature: sha256=%s\r\n"
_BODY = b'{"event": "sms.sent", "padding": "%s"}' % (b"x" * 400)
_WHOLE = (_HEAD % (b"0" * 64)) + b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)

#: What each kind sends at once, and what each second.
KINDS = {
    "silent": (b"", b""),
    "one byte": (b"P", b""),
    "half a head": (_HEAD % b"0000", b"a"),
    "half a body": (_WHOLE[: -len(_BODY) // 2], b"x"),
    "large bodies": ((_HEAD % b"00") + b"Content-Length: 262144\r\n\r\n" + b"x" * 200_000, b"x"),
    "never read": (_WHOLE * 400, b""),
    "line ends": (b"\r\n" * 128_000, b"\r\n" * 128_000),
}
#: Seconds that all of them may take to be closed, before that is given up.
PATIENCE = 65.0


@contextlib.contextmanager
def strangers(port: int, kinds: dict[str, int]) -> Iterator[SimpleNamespace]:
    """So many of each kind. Afterwards `gone` is after how many seconds all were closed."""
    ran = SimpleNamespace(gone=None)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.strangers", str(port)),
            *(f"{kind}={count}" for kind, count in kinds.items()),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        yield ran
        said, _ = process.communicate(timeout=PATIENCE + 15)
        ran.gone = None if said.strip() == "never" else float(said)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


class _Crowd:
    def __init__(self, port: int, kinds: list[str]) -> None:
        self._address = ("127.0.0.1", port)
        #: The kinds of those that are not open.
        self._missing = kinds
        self._count = len(kinds)
        self._kinds: dict[int, str] = {}
        self._poll = select.epoll()
        #: What each has not sent yet.
        self._left: dict[int, memoryview] = {}
        self._sockets: dict[int, socket.socket] = {}

    def run(self) -> str:
        self._poll.register(0, select.EPOLLIN)
        told, reopen_at, drip_at = False, 0.0, time.monotonic() + 1
        while True:
            if not told or time.monotonic() > reopen_at:
                reopen_at = time.monotonic() + 1
                for _ in range(min(500, len(self._missing))):
                    self._open(self._missing.pop())
            if not told and len(self._sockets) == self._count:
                told = True
                print("open", flush=True)
            if self._serve(0.02 if told else 0):
                break
            if time.monotonic() > drip_at:
                drip_at += 1
                for file, kind in self._kinds.items():
                    if KINDS[kind][1]:
                        self._send(file, KINDS[kind][1])
        stopped = time.monotonic()
        self._poll.unregister(0)
        for file in self._sockets:
            self._poll.modify(file, select.EPOLLRDHUP)
        while self._sockets:
            self._serve(0.1)
            if time.monotonic() > stopped + PATIENCE:
                return "never"
        return f"{time.monotonic() - stopped:.2f}"

    def _open(self, kind: str) -> None:
        try:
            connection = socket.create_connection(self._address, 5)
        except OSError:
            self._missing.append(kind)
            return
        connection.setblocking(False)
        file = connection.fileno()
        self._sockets[file] = connection
        self._kinds[file] = kind
        self._left[file] = memoryview(KINDS[kind][0])
        self._poll.register(file, select.EPOLLRDHUP | select.EPOLLOUT)
        self._go_on(file)

    def _go_on(self, file: int) -> None:
        left = self._left[file]
        if left:
            self._left[file] = left[self._send(file, left) :]
        if not self._left[file] and file in self._sockets:
            self._poll.modify(file, select.EPOLLRDHUP)

    def _send(self, file: int, data: bytes | memoryview) -> int:
        try:
            return self._sockets[file].send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return 0  # the next look closes it

    def _serve(self, within: float) -> bool:
        """
        :returns: whether standard input has ended.
        """
        for file, event in self._poll.poll(within):
            if file == 0:
                return True
            if event & ~select.EPOLLOUT:
                self._poll.unregister(file)
                self._sockets.pop(file).close()
                self._missing.insert(0, self._kinds.pop(file))
            else:
                self._go_on(file)
        return False


if __name__ == "__main__":
    wanted = [word.split("=") for word in sys.argv[2:]]
    print(_Crowd(int(sys.argv[1]), [kind for kind, n in wanted for _ in range(int(n))]).run())
