"""Sending through sipgate, beside a simulated one: intents first, one request, and what becomes of
what may have gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from werkzeug.test import TestResponse

from receiver.errors import StoreUnavailable
from receiver.providers.sipgate.intents import Book
from receiver.providers.sipgate.polling import EVERY, GIVE_UP
from receiver.times import HOUR, iso
from tests.conftest import Clock
from tests.polling.life import NUMBER, Life
from tests.sqlite_files import migrated
from tests.web.v1.gateway.asking import TEXT, problem

BOTH = pytest.mark.each_engine
OTHER = "+4915799000003"
SEND = "POST /sessions/sms"


class Here(Life):
    def send_by(self, call: str, **body: Any) -> TestResponse:
        return self.client.post(f"/v1/sms/{call}", json=body, headers={"X-API-Key": "key"})

    def one(self, **changes: Any) -> TestResponse:
        return self.send_by("send", **{"to": NUMBER, "message": TEXT, **changes})

    def status(self, message_id: str) -> Any:
        return self.get(f"/v1/sms/status/{message_id}")

    @property
    def asked(self) -> int:
        return self.wire.calls.count(SEND)

    @property
    def waiting(self) -> list[str]:
        return [intent.id for intent in Book(self.receiver.store).open()]

    def close(self) -> None:
        for app in self.apps:
            app.extensions["receiver"].senders["sipgate"].client.close()
        super().close()


@pytest.fixture
def here(environ: dict[str, str], clock: Clock) -> Iterator[Here]:
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        if environ["DATABASE_URL"].startswith("sqlite:"):
            environ["DATABASE_URL"] = migrated(Path(folder, "receiver.db"))
        here = Here(environ, clock)
        yield here
        here.close()


def no_answer(here: Here, *, arrives: bool) -> Any:
    """The request arrives, or not; its answer does not."""

    def fault(request: httpx.Request) -> httpx.Response | None:
        if request.method != "POST":
            return None
        if arrives:
            here.wire._app.handle_request(request)
        raise httpx.ReadTimeout("no answer in time")

    return fault


def refuse(*_: Any) -> None:
    raise StoreUnavailable("the disk is full")


def refuses(status: int) -> Any:
    return lambda request: (
        httpx.Response(status, headers={"Retry-After": "7"}) if request.method == "POST" else None
    )


@BOTH
def test_one_from_the_request_to_its_entry(here: Here) -> None:
    answer = here.one(metadata={"order": 17}, priority=1).get_json()
    (sms,) = here.world.sent.values()
    assert answer == {
        "success": True,
        "message_id": answer["message_id"],
        "status": "queued",
        "to": NUMBER,
        "queued_at": iso(here.clock.time),
        "provider": "sipgate",
    }
    assert answer["message_id"].startswith("sipgate:")
    assert (sms.to, sms.text, sms.sms_id) == (NUMBER, TEXT, "s0")
    known = here.status(answer["message_id"])
    assert (known["status"], known["message"], known["metadata"]) == ("queued", TEXT, {"order": 17})
    assert [event["source"] for event in known["events"]] == ["gateway"]
    here.look(3 * EVERY)
    known = here.status(answer["message_id"])
    assert (known["status"], known["metadata"]) == ("sent", {"order": 17})
    assert here.waiting == []


def test_its_intent_is_written_down_before_its_request_leaves(here: Here) -> None:
    seen = []
    here.wire.fault = lambda request: seen.append(here.waiting)  # type: ignore[func-returns-value]
    message_id = here.one().get_json()["message_id"]
    assert seen == [[message_id.removeprefix("sipgate:")]]


@BOTH
@pytest.mark.parametrize("arrives", [True, False])
def test_a_lost_answer_is_never_asked_for_again_and_is_looked_for(
    here: Here, arrives: bool
) -> None:
    here.wire.fault = no_answer(here, arrives=arrives)
    answer = here.one()
    assert (answer.status_code, answer.json["error"]["code"]) == (504, "NETWORK_ERROR")
    assert "may have been sent" in answer.json["error"]["message"]
    message_id = answer.json["message_id"]
    assert here.asked == 1
    assert here.status(message_id)["status"] == "queued"
    here.wire.fault = lambda request: None
    here.look(2 * EVERY)
    here.wait(GIVE_UP)
    here.look(2 * EVERY)
    assert here.status(message_id)["status"] == ("sent" if arrives else "queued")
    assert here.asked == 1
    assert here.waiting == []


@BOTH
def test_while_the_store_is_away_nothing_is_sent(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.receiver.store, "write_notes", refuse)
    for answer in (here.one(), here.send_by("send-bulk", recipients=[NUMBER], message=TEXT)):
        assert "Nothing was sent" in problem(answer, 503, "SERVICE_UNAVAILABLE")
        assert int(answer.headers["Retry-After"]) > 0
    assert here.asked == 0
    assert here.events() == []


def test_it_is_answered_also_if_the_store_goes_away_behind_the_request(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setattr(here.receiver.store, "ingest", refuse)
        message_id = here.one().get_json()["message_id"]
    assert here.events() == []
    here.look(3 * EVERY)  # its intent was written down
    assert here.status(message_id)["status"] == "sent"


@pytest.mark.parametrize(
    ("status", "told", "code"),
    [
        (400, 400, "INVALID_REQUEST"),
        (401, 502, "PROVIDER_REFUSED_US"),
        (402, 402, "NO_CREDIT"),
        (403, 502, "PROVIDER_REFUSED_US"),
        (429, 429, "RATE_LIMIT_EXCEEDED"),
        (500, 502, "NETWORK_ERROR"),
    ],
)
def test_errors(here: Here, status: int, told: int, code: str) -> None:
    here.wire.fault = refuses(status)
    answer = here.one()
    assert (answer.status_code, answer.json["error"]["code"]) == (told, code)
    may_have_gone = status == 500
    assert ("message_id" in answer.json) == may_have_gone
    assert answer.headers.get("Retry-After") == (None if may_have_gone else "7")
    assert len(here.events()) == len(here.waiting) == may_have_gone
    assert here.asked == 1


def test_each_of_many_has_its_own_result(here: Here) -> None:
    numbers = [NUMBER, "0157", OTHER, NUMBER]
    answer = here.send_by("send-bulk", recipients=numbers, message=TEXT).get_json()
    rows = answer["messages"]
    assert [row["to"] for row in rows] == numbers
    assert [row["status"] for row in rows] == ["queued", "failed", "queued", "queued"]
    assert (answer["queued_messages"], answer["failed_messages"]) == (3, 1)
    assert here.asked == 3
    here.look(3 * EVERY)
    known = [row["message_id"] for row in rows if row["status"] == "queued"]
    assert {here.status(each)["status"] for each in known} == {"sent"}


def test_after_a_lost_answer_the_others_of_many_are_not_sent(here: Here) -> None:
    texts = [{"to": NUMBER, "message": text} for text in "abc"]
    lost = no_answer(here, arrives=True)
    here.wire.fault = lambda request: lost(request) if here.asked == 2 else None
    answer = here.send_by("send-bulk-personalized", messages=texts)
    assert answer.status_code == 200
    told = [(row["status"], row.get("error", {}).get("code")) for row in answer.json["messages"]]
    assert told == [
        ("queued", None),
        ("queued", "NETWORK_ERROR"),
        ("failed", "SERVICE_UNAVAILABLE"),
    ]
    assert here.asked == 2
    here.look(3 * EVERY)
    first, second, _ = answer.json["messages"]
    assert here.status(first["message_id"])["status"] == "sent"
    assert here.status(second["message_id"])["status"] == "sent"
    assert len(here.world.sent) == 2


def test_one_reason_for_all_is_told_as_for_one(here: Here) -> None:
    here.wire.fault = refuses(402)
    problem(here.send_by("send-bulk", recipients=[NUMBER, OTHER], message=TEXT), 402, "NO_CREDIT")
    assert here.asked == 1
    assert here.waiting == []


def test_what_sipgate_cannot_do(here: Here) -> None:
    own_id = here.one(scheduled_at=iso(here.clock.time + HOUR)).get_json()["message_id"]
    key = {"X-API-Key": "key"}
    for answer in (
        here.send_by("send-otp", to=NUMBER),
        here.send_by("verify-otp", otp_id="sipgate:o1", code="1"),
        here.send_by(f"{own_id}/resend"),
        here.client.delete(f"/v1/sms/{own_id}", headers=key),
    ):
        problem(answer, 501, "NOT_SUPPORTED")
    assert here.asked == 1
    assert here.status(own_id)["status"] == "queued"


#: Each way that sipgate can fail, and whether surely nothing was sent.
FAILURES: dict[str, tuple[Any, bool]] = {
    "our token": (refuses(401), True),
    "no credit": (refuses(402), True),
    "our extension": (refuses(403), True),
    "too many requests": (refuses(429), True),
    "a request": (refuses(400), True),
    "theirs": (refuses(500), False),
    "a proxy's": (refuses(503), False),
}


@pytest.fixture(scope="module")
def before_zimsend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A receiver that asks sipgate, and then ZimSend."""
    zimsend = {"ZIMSEND_API_KEY": "key", "ZIMSEND_CLIENT_ID": "id", "SEND_WITH": "sipgate,zimsend"}
    url = f"sqlite:///{tmp_path_factory.mktemp('several') / 'receiver.db'}"
    here = Here({"DATABASE_URL": url, **zimsend}, Clock())
    yield here
    here.close()


@pytest.mark.parametrize("case", [*FAILURES, "silence", "the store is away"])
def test_the_next_one_is_asked_only_where_surely_nothing_was_sent(
    before_zimsend: Here, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    here = before_zimsend
    fault, falls = FAILURES.get(case, (no_answer(here, arrives=False), False))
    if case == "the store is away":
        monkeypatch.setattr(here.receiver.store, "write_notes", refuse)
    taken = {"success": True, "message_id": "msg_1", "status": "queued"}

    def answer(request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/v1/sms/send":
            return httpx.Response(200, json=taken)
        return fault(request)  # type: ignore[no-any-return]

    here.wire.calls, here.wire.fault = [], answer
    told = here.one().get_json()
    assert (told.get("provider") == "zimsend") == falls
    assert here.wire.calls.count("POST /v1/sms/send") == falls
