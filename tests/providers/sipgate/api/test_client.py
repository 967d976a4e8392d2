"""The client of sipgate's API: requests, answers, errors, repetitions, a moving history."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.providers.errors import (
    CredentialsRefused,
    NotFound,
    NotUnderstood,
    ProviderError,
    RequestRefused,
    TryLater,
    Unavailable,
)
from receiver.providers.sipgate.api import Sipgate, answers
from receiver.providers.sipgate.api.client import OVERLAP
from tests.canned import Canned, Handler, Step, ok, reset, silent, status
from tests.providers.sipgate.api.calls import CALLS, ENTRY, NUMBER, PAGE, TOKEN, TOKEN_ID
from tests.providers.zimsend.api.calls import BROKEN

BASIC = base64.b64encode(f"{TOKEN_ID}:{TOKEN}".encode()).decode()
SENDS = [name for name, (*_, repeated) in CALLS.items() if not repeated]
GETS = [name for name in CALLS if name not in SENDS]


def accepted(answer: Any) -> Step:
    return status(204) if answer is None else ok(answer)


def fails(client: Sipgate, name: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        CALLS[name][0](client)
    shown = f"{caught.value!r} {caught.value}"
    assert TOKEN not in shown
    assert BASIC not in shown
    return caught.value


# --- requests and answers


@pytest.mark.parametrize("name", CALLS)
def test_requests(patient: Sipgate, server: Canned, name: str) -> None:
    call, method, target, body, answer, _ = CALLS[name]
    server.answers(accepted(answer))
    call(patient)
    assert (server.last.method, server.last.path) == (method, target)
    assert server.last.headers["Authorization"] == f"Basic {BASIC}"
    assert (json.loads(server.last.body) if body else server.last.body) == (body or b"")
    if body:
        assert server.last.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("step", [status(204), status(200), status(200, b"ok"), ok({"id": 1}, 201)])
def test_any_success_is_one(patient: Sipgate, server: Canned, step: Step) -> None:
    """Which code it is, and what with it, is not documented."""
    server.answers(step)
    patient.send(NUMBER, "Hello")


def test_answers(patient: Sipgate, server: Canned) -> None:
    def got(name: str) -> Any:
        server.answers(ok(CALLS[name][4]))
        return CALLS[name][0](patient)

    assert got("userinfo").id == "w0"
    (extension,) = got("extensions")
    assert (extension.id, extension.alias, extension.caller_id) == ("s0", "SMS", "sipgate")
    (caller_id,) = got("caller ids")
    assert (caller_id.id, caller_id.number, caller_id.verified) == ("7", NUMBER, True)
    assert NUMBER not in repr(caller_id)
    assert got("account").history_life_time == "THIRTY_DAYS"
    page = got("history")
    assert (page.items, page.count, page.total) == ((ENTRY,), 1, 1)
    assert NUMBER not in repr(page)
    assert got("entry") == ENTRY


def test_an_entry_that_is_twice_in_one_answer_is_one(patient: Sipgate, server: Canned) -> None:
    other = ENTRY | {"id": "2"}
    server.answers(ok({"items": [ENTRY, other, ENTRY, {"id": None}], "totalCount": 4}))
    page = patient.history()
    assert [item["id"] for item in page.items] == ["5005443120", "2"]
    assert page.count == 3


@pytest.mark.parametrize("name", GETS)
@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'"x"', b'{"items": 1}'])
def test_answers_that_are_not_theirs(
    patient: Sipgate, server: Canned, name: str, answer: bytes
) -> None:
    server.answers(status(200, answer))
    if name == "account" and answer.startswith(b"{"):
        assert patient.account().history_life_time is None
    else:
        assert type(fails(patient, name)) is NotUnderstood


@pytest.mark.parametrize(
    "make",
    [
        lambda s: s.entry(".."),
        lambda s: s.extensions(""),
        lambda s: Sipgate("a:b", "c"),
        lambda s: Sipgate("a", "b\nc"),
        lambda s: Sipgate("", "c"),
        lambda s: Sipgate("a", "b", base_url="ftp://example.org"),
    ],
)
def test_what_no_request_can_hold(
    patient: Sipgate, server: Canned, make: Callable[[Sipgate], Any]
) -> None:
    with pytest.raises(ValueError, match=r"."):
        make(patient)
    assert server.seen == []


# --- errors


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (status(400), RequestRefused),
        (ok({"message": "bad time"}, 400), RequestRefused),
        (status(401), CredentialsRefused),
        (status(402), TryLater),
        (status(403), CredentialsRefused),
        (status(404), NotFound),
        (status(405), RequestRefused),
        (status(415), RequestRefused),
        (status(429, b"", "Retry-After: 7"), TryLater),
        (status(500), Unavailable),
        (status(502, b"<html>"), Unavailable),
        (status(302, b"", "Location: https://example.org"), NotUnderstood),
    ],
)
def test_errors_by_what_the_caller_can_do(
    patient: Sipgate, server: Canned, step: Step, kind: type[ProviderError]
) -> None:
    server.answers(step)
    error = fails(patient, "send")
    assert type(error) is kind
    assert error.maybe_sent is (kind in (Unavailable, NotUnderstood))
    assert error.advice
    assert error.retry_after == (7 if error.status == 429 else None)
    assert len(server.seen) == 1


def test_errors_show_no_secret(patient: Sipgate, server: Canned) -> None:
    server.answers(ok({"message": f"bad {TOKEN}\n{BASIC}", "code": "x"}, 400))
    error = fails(patient, "send")
    assert (error.message, error.code) == ("bad *** ***", "x")


# --- what is repeated


@pytest.mark.parametrize("step", [*BROKEN.values(), status(500), status(502)])
def test_what_only_reads_is_repeated_and_nothing_else(
    patient: Sipgate, server: Canned, step: Step
) -> None:
    for name, (call, *_, answer, repeated) in CALLS.items():
        server.answers(step, accepted(answer))
        if repeated:
            call(patient)
        else:
            assert fails(patient, name).maybe_sent
        assert len(server.seen) == 1 + repeated


def test_what_timed_out_is_not_repeated(server: Canned) -> None:
    server.answers(silent)
    with Sipgate(TOKEN_ID, TOKEN, base_url=server.url, timeout=0.5) as sipgate:
        error = fails(sipgate, "send")
    assert isinstance(error, Unavailable)
    assert (error.timed_out, error.maybe_sent) == (True, True)
    assert len(server.seen) == 1
    server.released.set()


def test_a_limit_is_obeyed_where_it_is_told(patient: Sipgate, server: Canned) -> None:
    server.answers(status(429, b"", "Retry-After: 1"), ok(PAGE))
    patient.history()
    assert len(server.seen) == 2
    server.answers(reset, status(204))
    assert fails(patient, "send").maybe_sent
    assert len(server.seen) == 1


# --- a history that moves


class Moving:
    """A history, newest first, that changes after each answer.

    :param limit: entries that it gives at most, whatever is asked.
    :param changes: what happens to it, one after another.
    """

    def __init__(
        self, count: int, changes: Sequence[Callable[[Moving], None]] = (), limit: int = 1000
    ) -> None:
        self.kept = [f"k{n}" for n in reversed(range(count))]
        self.archived: list[str] = []
        self.changes, self.limit = list(changes), limit
        self.asked: list[dict[str, list[str]]] = []
        self.added = 0
        #: So many of a page are in it twice.
        self.twice = 0

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self.added += 1
            self.kept.insert(0, f"a{self.added}")

    def drop(self, count: int = 1) -> None:
        del self.kept[:count]

    def archive(self, count: int = 1) -> None:
        self.archived += self.kept[:count]
        self.drop(count)

    def page(self, query: str) -> Any:
        asked = parse_qs(query)
        self.asked.append(asked)
        items = self.archived if asked["archived"] == ["true"] else self.kept
        offset, limit = int(asked["offset"][0]), min(int(asked["limit"][0]), self.limit)
        rows = [{"id": name} for name in items[offset : offset + limit]]
        page = {"items": [*rows, *rows[: self.twice]], "totalCount": len(items)}
        if self.changes:
            self.changes.pop(0)(self)
        return page

    def step(self, handler: Handler) -> None:
        ok(self.page(urlsplit(handler.path).query))(handler)


class Directly(Sipgate):
    """A client whose history is beside it, without a network."""

    def __init__(self, moving: Moving) -> None:
        super().__init__(TOKEN_ID, TOKEN)
        self._moving = moving

    def history(self, *, offset: int = 0, limit: int = 1000, **which: Any) -> answers.Page:
        archived = "true" if which["archived"] else "false"
        query = f"archived={archived}&offset={offset}&limit={limit}"
        return answers.page(self._moving.page(query))


def read(moving: Moving, **which: Any) -> list[str]:
    return [item["id"] for item in Directly(moving).entries(**which)]


def test_pages_overlap_and_end_at_the_total(patient: Sipgate, server: Canned) -> None:
    moving = Moving(250)
    server.answers(moving.step)
    found = [item["id"] for item in patient.entries(limit=100)]
    assert found == [f"k{n}" for n in reversed(range(250))]
    offsets = [int(asked["offset"][0]) for asked in moving.asked]
    assert offsets == [0, 100 - OVERLAP, 200 - 2 * OVERLAP, 0]
    assert [asked["archived"] for asked in moving.asked] == [["false"]] * 3 + [["true"]]


def test_what_comes_meanwhile_pushes_nothing_away() -> None:
    moving = Moving(250, [lambda m: m.add(90)] * 5)
    assert {f"k{n}" for n in range(250)} <= set(read(moving, limit=100))


def test_what_goes_meanwhile_lets_nothing_slip_past() -> None:
    for gone in (1, OVERLAP - 1, OVERLAP, OVERLAP + 1, 60):
        moving = Moving(250, [lambda m, gone=gone: m.drop(gone)])  # type: ignore[misc]
        assert set(read(moving, limit=100)) >= {f"k{n}" for n in range(250 - gone)}


def test_what_is_archived_meanwhile_is_seen() -> None:
    moving = Moving(250, [lambda m: m.archive(3)] * 3)
    found = read(moving, limit=100)
    assert sorted(found) == sorted(f"k{n}" for n in range(250))


def test_archived_alone_can_be_meant() -> None:
    moving = Moving(3)
    moving.archive()
    assert read(moving, archived=True) == ["k2"]
    assert read(moving, archived=False) == ["k1", "k0"]


def test_a_history_that_gives_less_than_was_asked_is_read_whole() -> None:
    assert len(read(Moving(57, limit=10), limit=1000)) == 57
    assert len(read(Moving(7, limit=1), limit=1000)) == 7


@pytest.mark.parametrize("twice", [1, 5, 10])
def test_entries_that_are_twice_in_an_answer_hide_no_others(twice: int) -> None:
    for count in range(9, 32):
        moving = Moving(count)
        moving.twice = twice
        assert len(read(moving, limit=10)) == count


def test_a_history_that_never_stands_still_is_told() -> None:
    moving = Moving(10_000, [lambda m: m.drop(90)] * 50)
    with pytest.raises(NotUnderstood, match="faster"):
        read(moving, limit=100)


def test_without_a_total_it_is_read_until_nothing_new_comes(
    patient: Sipgate, server: Canned
) -> None:
    server.answers(ok({"items": [ENTRY]}))
    assert list(patient.entries()) == [ENTRY]


@given(
    st.integers(0, 60),
    st.integers(2, 12),
    st.lists(st.tuples(st.sampled_from(["add", "drop", "archive"]), st.integers(1, 4))),
)
def test_whatever_happens_meanwhile(count: int, limit: int, changes: list[tuple[str, int]]) -> None:
    """What was there all the time is read, or it is told that it could not be."""
    moving = Moving(
        count,
        [lambda m, name=name, n=n: getattr(m, name)(n) for name, n in changes],  # type: ignore[misc]
    )
    try:
        found = read(moving, limit=limit)
    except NotUnderstood:
        return
    assert len(found) == len(set(found))
    assert set(moving.kept) - {f"a{n}" for n in range(moving.added + 1)} <= set(found)
