"""Requests in ZimSend's shape: what sipgate takes, what is answered; nothing goes twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import pytest

from receiver.errors import StoreUnavailable
from receiver.providers.errors import (
    CredentialsRefused,
    NotFound,
    NotUnderstood,
    ProviderError,
    RequestRefused,
    TryLater,
    Unavailable,
)
from receiver.providers.requests import LONGEST, NotTaken
from receiver.providers.sipgate import polling, sending
from receiver.providers.sipgate.intents import Book, Intent
from receiver.times import DAY, HOUR, MINUTE, SECOND, iso
from tests.providers.sipgate.past import NOON, NUMBER, RETENTION, Memory

ASKED: dict[str, Any] = {"to": NUMBER, "message": "Guten Tag"}


class Client:
    """Answers what a test says, one after another; the last one for all that follow."""

    sms_id = "s0"

    def __init__(self, *answers: ProviderError | None, took: float = 0.0) -> None:
        self.answers = list(answers) or [None]
        self.sent: list[tuple[str, str, int | None]] = []
        self.took, self.time = took, 0.0

    def within(self, **bounds: Any) -> Self:
        return self

    def clock(self) -> float:
        return self.time

    def send(self, to: str, text: str, *, send_at: int | None = None) -> None:
        self.sent.append((to, text, send_at))
        self.time += self.took
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


def lost(**how: Any) -> Unavailable:
    return Unavailable("no answer", maybe_sent=True, **how)


def send(
    client: Client, wanted: Sequence[Any], memory: Memory | None = None
) -> tuple[list[sending.End], dict[str, Intent]]:
    return sending.send(
        client,  # type: ignore[arg-type]
        Book(memory or Memory()),
        wanted,
        now=NOON,
        text_mode="full",
        clock=client.clock,
    )


# --- what is read


def test_what_is_asked_reaches_sipgate() -> None:
    later = iso(NOON + 30 * DAY)
    wanted = sending.one({**ASKED, "to": "49 (0)15799/000002", "scheduled_at": later}, NOON)
    client = Client()
    (end,), sent = send(client, [wanted])
    assert client.sent == [(NUMBER, "Guten Tag", (NOON + 30 * DAY) // SECOND)]
    assert end.problem is None
    assert sent[end.id].send_at == NOON + 30 * DAY


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": "01579 9000002"}, "INVALID_PHONE_NUMBER"),
        ({"to": None}, "INVALID_PHONE_NUMBER"),
        ({"to": "+49"}, "INVALID_PHONE_NUMBER"),
        ({"message": " "}, "INVALID_REQUEST"),
        ({"message": None}, "INVALID_REQUEST"),
        ({"message": "half \ud83d"}, "INVALID_REQUEST"),
        ({"metadata": [1]}, "INVALID_REQUEST"),
        ({"scheduled_at": "soon"}, "INVALID_SCHEDULED_DATE"),
        ({"scheduled_at": 1_795_600_900}, "INVALID_SCHEDULED_DATE"),
        ({"scheduled_at": iso(NOON)}, "INVALID_SCHEDULED_DATE"),
        ({"scheduled_at": iso(NOON + 30 * DAY + SECOND)}, "INVALID_SCHEDULED_DATE"),
        ({"scheduled_at": "9999-12-31T23:59:59-14:00"}, "INVALID_SCHEDULED_DATE"),
    ],
)
def test_what_sipgate_could_not_send_is_told_before(changes: Any, code: str) -> None:
    with pytest.raises(NotTaken) as caught:
        sending.one(ASKED | changes, NOON)
    assert (caught.value.status, caught.value.code) == (400, code)


# --- what is answered


def test_one() -> None:
    (end,), _ = send(Client(), [sending.one(ASKED, NOON)])
    assert sending.answer_to_one(end, NOON) == {
        "success": True,
        "message_id": f"sipgate:{end.id}",
        "status": "queued",
        "to": NUMBER,
        "queued_at": iso(NOON),
        "provider": "sipgate",
    }


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestRefused("no", status=400), 400, "INVALID_REQUEST"),
        (CredentialsRefused("no", status=401), 502, "PROVIDER_REFUSED_US"),
        (TryLater("no", status=402), 402, "NO_CREDIT"),
        (CredentialsRefused("no", status=403), 502, "PROVIDER_REFUSED_US"),
        (NotFound("no", status=404), 502, "NETWORK_ERROR"),
        (RequestRefused("no", status=405), 502, "NETWORK_ERROR"),
        (RequestRefused("no", status=415), 502, "NETWORK_ERROR"),
        (TryLater("no", status=429, retry_after=7), 429, "RATE_LIMIT_EXCEEDED"),
        (Unavailable("no", maybe_sent=False), 502, "NETWORK_ERROR"),
    ],
)
def test_what_was_surely_not_sent_leaves_nothing_behind(
    error: ProviderError, status: int, code: str
) -> None:
    memory = Memory()
    ends, sent = send(Client(error), [sending.one(ASKED, NOON)], memory)
    with pytest.raises(NotTaken) as caught:
        sending.answer_to_one(ends[0], NOON)
    told = caught.value
    assert (told.status, told.code, told.maybe_sent) == (status, code, False)
    assert (told.message_id, told.retry_after) == (None, error.retry_after)
    assert sent == {}
    assert memory.texts == {}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (lost(timed_out=True), 504),
        (lost(), 504),
        (lost(status=500), 502),
        (NotUnderstood("moved", status=302, maybe_sent=True), 502),
    ],
)
def test_what_may_have_been_sent_is_told_with_its_id_and_looked_for(
    error: ProviderError, status: int
) -> None:
    memory, client = Memory(), Client(error)
    ends, sent = send(client, [sending.one(ASKED, NOON)], memory)
    with pytest.raises(NotTaken) as caught:
        sending.answer_to_one(ends[0], NOON)
    told = caught.value
    assert (told.status, told.code, told.maybe_sent) == (status, "NETWORK_ERROR", True)
    assert told.message_id == f"sipgate:{ends[0].id}"
    assert len(client.sent) == 1
    assert [each.id for each in Book(memory).open()] == list(sent) == [ends[0].id]
    memory.learn(sending.events(sent, now=NOON, retention=RETENTION, text_mode="full"))
    assert memory.status(ends[0].id) == "queued"


def test_many_have_a_result_each() -> None:
    numbers = [NUMBER, "0157", "+4915799000003", None, NUMBER]
    wanted = sending.many({"recipients": numbers, "message": "Hallo"}, NOON)
    client = Client(None, RequestRefused("no", status=400), None)
    ends, sent = send(client, [sms for sms in wanted if isinstance(sms, sending.Wanted)])
    told = sending.answer_to_many(wanted, ends, NOON)
    assert [row["status"] for row in told["messages"]] == [
        "queued", "failed", "failed", "failed", "queued",
    ]  # fmt: skip
    assert [row["to"] for row in told["messages"]] == numbers
    assert (told["success"], told["queued_messages"], told["failed_messages"]) == (True, 2, 3)
    assert len({row["message_id"] for row in told["messages"] if "message_id" in row}) == 2
    assert [to for to, *_ in client.sent] == [NUMBER, "+4915799000003", NUMBER]
    assert len(sent) == 2


def test_personalised_ones_are_sent_each_by_itself() -> None:
    later = iso(NOON + HOUR)
    asked = {
        "messages": [
            {"to": NUMBER, "message": "a", "metadata": {"n": 1}},
            {"to": NUMBER, "message": "b", "scheduled_at": later},
        ]
    }
    wanted = sending.many(asked, NOON)
    client = Client()
    ends, sent = send(client, wanted)
    told = sending.answer_to_many(wanted, ends, NOON)
    assert told["messages"][1]["scheduled_at"] == later
    assert [text for _, text, _ in client.sent] == ["a", "b"]
    assert [each.item.get("metadata") for each in sent.values()] == [{"n": 1}, None]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TryLater("no", status=402), "NO_CREDIT"),
        (CredentialsRefused("no", status=401), "PROVIDER_REFUSED_US"),
        (lost(timed_out=True), "SERVICE_UNAVAILABLE"),
    ],
)
def test_where_no_other_will_be_taken_none_is_tried(error: ProviderError, code: str) -> None:
    wanted = sending.many({"recipients": [NUMBER] * 4, "message": "Hallo"}, NOON)
    client, memory = Client(None, error), Memory()
    ends, sent = send(client, wanted, memory)
    assert len(client.sent) == 2
    told = sending.answer_to_many(wanted, ends, NOON)
    assert [row["status"] for row in told["messages"][2:]] == ["failed", "failed"]
    assert [row["error"]["code"] for row in told["messages"][2:]] == [code, code]
    # What may have gone is not "failed": who sends that again would send it twice.
    assert told["messages"][1]["status"] == ("queued" if error.maybe_sent else "failed")
    assert "error" in told["messages"][1]
    assert len(sent) == 1 + error.maybe_sent
    assert {each.id for each in Book(memory).open()} == set(sent)


def test_many_end_before_a_pass_takes_them_for_asked() -> None:
    assert LONGEST + sending.PATIENCE + 10 < polling.UNSURE / SECOND
    wanted = sending.many({"recipients": [NUMBER] * 10, "message": "Hallo"}, NOON)
    client = Client(took=25.0)
    ends, _ = send(client, wanted)
    assert len(client.sent) == 3
    assert [end.problem is None for end in ends] == [True] * 3 + [False] * 7


def test_without_the_store_nothing_is_sent() -> None:
    class Away(Memory):
        def write_notes(self, texts: Any) -> None:
            raise StoreUnavailable("away")

    client = Client()
    with pytest.raises(StoreUnavailable):
        send(client, [sending.one(ASKED, NOON)], Away())
    assert client.sent == []


def test_a_store_that_goes_away_meanwhile_changes_no_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Leaving(Memory):
        def write_notes(self, texts: Any) -> None:
            if None in texts.values():
                raise StoreUnavailable("away")
            super().write_notes(texts)

    memory = Leaving()
    ends, sent = send(Client(TryLater("no", status=402)), [sending.one(ASKED, NOON)], memory)
    assert ends[0].problem is not None
    assert (ends[0].problem.code, sent) == ("NO_CREDIT", {})
    assert len(Book(memory).open()) == 1
    assert NUMBER not in caplog.text


def test_an_intent_is_there_before_its_request_leaves() -> None:
    memory, seen = Memory(), list[Iterable[Intent]]()

    class Looking(Client):
        def send(self, *_: Any, **__: Any) -> None:
            seen.append(Book(memory).open())

    ends, _ = send(Looking(), [sending.one(ASKED, NOON)] * 2, memory)
    assert [{each.id for each in kept} for kept in seen] == [{end.id for end in ends}] * 2


def test_metadata_that_is_nested_too_deep_is_left_out_and_the_send_looked_for() -> None:
    deep: Any = 1
    for _ in range(199):
        deep = {"a": deep}
    memory = Memory()
    ends, sent = send(Client(), [sending.one({**ASKED, "metadata": deep}, NOON)], memory)
    assert [each.id for each in Book(memory).open()] == [ends[0].id]
    told = sending.events(sent, now=NOON + MINUTE, retention=RETENTION, text_mode="full")
    assert [event.type for event in told] == ["sms.queued"]
