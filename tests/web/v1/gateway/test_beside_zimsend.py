"""The gateway as a service: for a program that knows only ZimSend, and beside a sick ZimSend."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from receiver import times
from receiver.times import HOUR, iso
from tests.canned import Canned, ok, reset, silent, status
from tests.conftest import SECRET
from tests.payloads import envelope, sms
from tests.server import Server, eventually, simulating
from tests.web.v1.gateway.asking import HEADERS, HTML, KEYS, MAYBE, NUMBER, TEXT, problem, sent


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A simulated ZimSend and a receiver, each in a process of its own."""
    folder = tmp_path_factory.mktemp("beside")
    environ = {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "DATABASE_URL": f"sqlite:///{folder / 'receiver.db'}",
        "HANDLERS": "tests.handlers",
        **KEYS,
    }
    server = Server(environ, folder, SECRET)
    server.environ["PUBLIC_URL"] = server.url
    options = "--seed 1 --speed 20 --devices 3 --failed 0.3"
    with (
        simulating(server, *options.split()) as ran,
        httpx.Client(base_url=ran.url, headers=HEADERS, timeout=30) as direct,
    ):
        server.environ["ZIMSEND_API_URL"] = f"{ran.url}/v1"
        server.start()
        yield SimpleNamespace(server=server, url=ran.url, direct=direct)
        server.close()
    assert ran.status == 0, ran.output


def truth(beside: SimpleNamespace) -> dict[str, dict[str, Any]]:
    """What really became of each message."""
    told = beside.direct.get("/truth").json()
    return {message["message_id"]: message for message in told["messages"]}


def program(base_url: str, read_sms: Callable[[str], str]) -> tuple[list[str], list[Any]]:
    """A program that knows ZimSend's documents, and nothing else.

    :returns: the ids of its messages; and the shape of all that it was answered.
    """
    shapes: list[Any] = []
    ids: list[str] = []
    with httpx.Client(headers=HEADERS, timeout=15) as http:

        def call(method: str, path: str, **body: Any) -> Any:
            answer = http.request(method, base_url + path, json=body or None)
            assert answer.headers["Content-Type"] == "application/json"
            told = answer.json()
            if method != "GET":
                shapes.append((answer.status_code, sorted(told), told.get("error")))
            return told

        def ended() -> dict[str, str]:
            time.sleep(0.1)
            rows = call("GET", "/sms/history?limit=100")["data"]
            found = {row["message_id"]: row["status"] for row in rows if row["message_id"] in ids}
            over = {"delivered", "failed", "cancelled"}
            return found if len(found) == len(ids) and set(found.values()) <= over else {}

        one = call("POST", "/sms/send", to=NUMBER, message=TEXT, metadata={"n": 1}, priority=1)
        assert (one["success"], one["status"], one["to"]) == (True, "queued", NUMBER)
        assert call("GET", f"/sms/status/{one['message_id']}")["message"] == TEXT
        numbers = [f"+336555500{n:02}" for n in range(12)]
        bulk = call("POST", "/sms/send-bulk", recipients=numbers, message=TEXT)
        assert [message["to"] for message in bulk["messages"]] == numbers
        each = [{"to": to, "message": f"Bonjour {to}", "metadata": {"to": to}} for to in numbers]
        own = call("POST", "/sms/send-bulk-personalized", messages=each)
        ids += [m["message_id"] for m in [one, *bulk["messages"], *own["messages"]]]

        otp = call("POST", "/sms/send-otp", to="+33700000001", length=6)
        ids.append(otp["message_id"])
        code = re.findall(r"[0-9]{6}", read_sms(otp["message_id"]))[-1]
        assert call("POST", "/sms/verify-otp", otp_id=otp["otp_id"], code="x")["valid"] is False
        assert call("POST", "/sms/verify-otp", otp_id=otp["otp_id"], code=code)["valid"] is True

        tomorrow = iso(times.now() + 24 * HOUR)
        later = call("POST", "/sms/send", to=NUMBER, message="x", scheduled_at=tomorrow)
        assert call("DELETE", f"/sms/{later['message_id']}")["status"] == "cancelled"
        assert call("GET", f"/sms/status/{later['message_id']}")["status"] == "cancelled"
        assert call("DELETE", f"/sms/{later['message_id']}")["success"] is False
        ids.append(later["message_id"])

        failed = [i for i, status in eventually(ended).items() if status == "failed"]
        for message_id in failed[:2]:
            assert call("POST", f"/sms/{message_id}/resend")["status"] == "queued"
        assert call("POST", "/sms/send", to="112", message="x")["success"] is False
        assert call("GET", "/sms/stats")["stats"]["delivered"] > 0
    return ids, shapes


def test_a_program_changes_its_base_url_and_nothing_else(beside: SimpleNamespace) -> None:
    def read_sms(message_id: str) -> str:
        text: str = truth(beside)[message_id]["message"]
        return text

    _, expected = program(f"{beside.url}/v1", read_sms)
    ids, shapes = program(f"{beside.server.url}/v1", read_sms)
    # How many of its messages fail is chance.
    assert [s for s in shapes if s[0] != 202] == [s for s in expected if s[0] != 202]
    assert (202, ["message_id", "status", "success"], None) in shapes

    eventually(lambda: beside.direct.get("/truth").json()["at_rest"])
    real = truth(beside)

    def mirror() -> dict[str, Any]:
        path = "/v1/sms/status/"
        asked = (beside.server.client.get(path + i, headers=HEADERS).json() for i in ids)
        return {message["message_id"]: message for message in asked}

    eventually(lambda: {i: m["status"] for i, m in mirror().items()} == states(real, ids))
    for message_id, message in mirror().items():
        for name in ("to", "message", "metadata", "sent_at", "delivered_at", "error"):
            assert message[name] == real[message_id][name], name
        learnt = [event["type"] for event in message["events"] if event["source"] == "gateway"]
        assert learnt[0] == "sms.queued"
        assert message["queued_at"]
        assert (message["status"] == "cancelled") == ("sms.cancelled" in learnt)
    log = beside.server.log.read_text()
    assert NUMBER not in log
    assert TEXT not in log


def states(real: dict[str, dict[str, Any]], ids: list[str]) -> dict[str, str]:
    return {message_id: real[message_id]["status"] for message_id in ids}


def test_a_sick_zimsend_is_no_trouble_of_the_webhook(
    serve: Callable[..., Server], zimsend: Canned
) -> None:
    server = serve(**KEYS, ZIMSEND_API_URL=f"{zimsend.url}/v1", WEB_THREADS="8")

    def call(method: str, path: str) -> tuple[httpx.Response, float]:
        body = {"to": NUMBER, "message": TEXT} if method == "POST" else None
        began = time.monotonic()
        url = f"{server.url}/v1/sms/{path}"
        answer = httpx.request(method, url, json=body, headers=HEADERS, timeout=20)
        return answer, time.monotonic() - began

    def webhook() -> float:
        began = time.monotonic()
        assert server.post(envelope("sms.sent", sms("sent"))).status_code == 200
        return time.monotonic() - began

    def asked(path: str) -> bool:
        return any(seen.path.endswith(path) for seen in zimsend.seen)

    calm = [webhook() for _ in range(200)][100:]
    zimsend.answers(silent)
    with ThreadPoolExecutor(8) as threads:
        held = threads.submit(call, "POST", "send")
        unknown = threads.submit(call, "GET", "status/nobody")
        eventually(lambda: asked("/send") and asked("/nobody"))
        answer, took = unknown.result()
        problem(answer, 404, "MESSAGE_NOT_FOUND")
        assert took < 8
        others = [threads.submit(call, "POST", "send") for _ in range(3)]
        eventually(lambda: sum(seen.path.endswith("/send") for seen in zimsend.seen) == 4)
        refused = [call("POST", "send-bulk") for _ in range(3)]  # four of eight threads wait
        for answer, _ in refused:
            problem(answer, 503, "SERVICE_UNAVAILABLE")
        assert min(took for _, took in refused) < 1
        sick = []
        while not held.done():
            sick.append(webhook())
        answer, took = held.result()
        assert MAYBE in problem(answer, 504, "NETWORK_ERROR")
        assert 9 < took < 19
        assert [other.result()[0].status_code for other in others] == [504] * 3
    assert len(sick) > 50
    assert median(sick) < 3 * median(calm) + 0.05
    assert sorted(sick)[len(sick) * 99 // 100] < 1

    limited = {"success": False, "error": {"code": "RATE_LIMIT_EXCEEDED", "message": "no"}}
    for step, code, name in (
        (reset, 502, "NETWORK_ERROR"),
        (status(502, HTML, "Content-Type: text/html"), 502, "NETWORK_ERROR"),
        (ok(limited, 429), 429, "RATE_LIMIT_EXCEEDED"),
    ):
        zimsend.answers(step)
        for number in range(10):
            answer, took = call("POST", "send")
            problem(answer, code, name)
            assert took < 7
            problem(call("GET", f"status/{code}_{name}_{number}")[0], 404, "MESSAGE_NOT_FOUND")
        sick = [webhook() for _ in range(50)]
        assert median(sick) < 3 * median(calm) + 0.05
    zimsend.answers(sent())
    assert call("POST", "send")[0].status_code == 200
    assert call("GET", "status/msg_1")[0].json()["message"] == TEXT
