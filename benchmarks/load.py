"""The load: signed requests about distinct events in a file, and `wrk` that sends them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from receiver import times
from receiver.providers.zimsend.samples import sample
from receiver.providers.zimsend.webhook import sign

SECRET = "a-secret-for-the-benchmark-only"
_SCRIPT = Path(__file__).with_name("ingest.lua")


@dataclass(frozen=True)
class Load:
    """What `wrk` saw. Latencies in milliseconds."""

    accepted: int
    seconds: float
    p50: float
    p99: float
    #: What makes the numbers worthless; empty for a clean run.
    problems: tuple[str, ...]


def bodies(name: str, count: int) -> Iterator[bytes]:
    """Events as ZimSend sends them, no two of the same id or about the same message.

    Their ids and numbers are in no order, as real ones are: an index takes each at another place.
    Their times go on, a thousand events a second, and come to the present with the last.
    """
    began = times.now() - count * times.SECOND // 1_000
    for number in range(count):
        digest = hashlib.sha1(f"{name} {number}".encode(), usedforsecurity=False).hexdigest()
        yield sample(
            ("sms.sent", "sms.delivered")[number % 2],
            event_id=f"evt_{digest[:16]}",
            message_id=f"msg_{digest[16:32]}",
            to=f"+336{int(digest[32:], 16) % 10**8:08}",
            now=began + number * times.SECOND // 1_000,
        )


def write_requests(path: Path, name: str, count: int) -> Path:
    """Prepare requests, in the form that `ingest.lua` reads."""
    with path.open("wb") as file:
        for body in bodies(name, count):
            request = _http_request(body)
            file.write(b"%d\n%b" % (len(request), request))
    return path


def _http_request(body: bytes) -> bytes:
    head = (
        "POST /webhooks/zimsend HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"X-Webhook-Signature: {sign(SECRET.encode(), body)}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*head, "", "")).encode() + body


def send(
    url: str, requests: Path, *, seconds: int, connections: int, rate: float | None = None
) -> Load:
    """Send prepared requests for a while.

    :param rate: requests a second; without it, each connection sends as soon as it is answered.
    """
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--timeout", "5s"]
    command += ["--duration", f"{seconds}s", "--script", str(_SCRIPT), url, "--", str(requests)]
    if rate is not None:
        command.append(str(rate))
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    told = json.loads(printed.splitlines()[-1])
    problems = {
        f"{told['refused']} answers other than 200": told["refused"],
        f"{told['broken']} broken connections or time-outs": told["broken"],
        "the prepared requests ran out": told["ran_out"],
    }
    return Load(
        accepted=told["answered"] - told["refused"],
        seconds=told["seconds"],
        p50=told["p50"],
        p99=told["p99"],
        problems=tuple(problem for problem, present in problems.items() if present),
    )
