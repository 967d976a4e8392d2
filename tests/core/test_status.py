"""A message's row: a function of the set of its events, and the status that follows from it.

Two halves: cases that a person would ask about, each tried in every order of arrival; and
properties of any events at all, against an oracle that knows nothing of registers and merging.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver import status, times
from receiver.status import FIELDS, STATES, Row

RETENTION = 90 * times.DAY
NOW = 1_795_162_542 * times.SECOND  # 2026-11-20T08:15:42Z
REGISTERS = 2 * len(STATES) + len(FIELDS) + 1  # states with their own times or receipts; error


def at(seconds: float) -> int:
    return NOW + int(seconds * times.SECOND)


def iso(seconds: float) -> str:
    return times.iso(at(seconds))


@dataclass(frozen=True)
class Report:
    """One event, as `status.project` gets it."""

    type: str
    timestamp: int | None
    id: str
    data: dict[str, Any] = field(default_factory=dict)
    received_at: int = NOW

    def row(self) -> Row | None:
        return status.project(
            self.type,
            self.data,
            event_id=self.id,
            timestamp=self.timestamp,
            received_at=self.received_at,
            retention=RETENTION,
        )


def sms(state: str, seconds: float | None = None, *, id: str = "", **data: Any) -> Report:
    """An event whose envelope says `seconds` after NOW, or nothing; received a minute after."""
    return Report(
        f"sms.{state}",
        None if seconds is None else at(seconds),
        id or f"evt_{state}_{seconds}",
        data,
        received_at=at(60),
    )


def fold(reports: Iterable[Report]) -> Row:
    row: Row = {}
    for report in reports:
        said = report.row()
        if said is not None:
            row = status.merge(row, said)
    return row


def became(*reports: Report) -> dict[str, Any]:
    """What a message became, whatever the order in which its events arrived."""
    rows = [fold(order) for order in itertools.permutations(reports)]
    assert all(row == rows[0] for row in rows)
    return status.describe(rows[0])


# --- the status: cases a person would ask about

CASES: dict[str, tuple[str | None, list[Report]]] = {
    "nothing but a device's event": (None, [Report("device.connected", at(0), "evt_1")]),
    "queued": ("queued", [sms("queued", 0)]),
    "processing": ("processing", [sms("queued", 0), sms("processing", 1)]),
    "sent": ("sent", [sms("queued", 0), sms("processing", 1), sms("sent", 2)]),
    "delivered": ("delivered", [sms("queued", 0), sms("sent", 1), sms("delivered", 2)]),
    "only delivered": ("delivered", [sms("delivered", 2)]),
    "late sent after delivered": ("delivered", [sms("sent", 1), sms("delivered", 2)]),
    "sent whose clock is after delivered's": (
        "delivered",
        [sms("delivered", 2), sms("sent", 10)],
    ),
    "queued whose clock is after sent's": ("sent", [sms("sent", 2), sms("queued", 10)]),
    "failed": ("failed", [sms("queued", 0), sms("failed", 1)]),
    "sent, then failed": ("failed", [sms("sent", 0), sms("failed", 1)]),
    "failed, and a sent from before it": ("failed", [sms("failed", 5), sms("sent", 2)]),
    "failed, then delivered after all": ("delivered", [sms("failed", 5), sms("delivered", 9)]),
    "delivered, then said to have failed": ("delivered", [sms("delivered", 5), sms("failed", 9)]),
    "failed, then queued again": ("queued", [sms("sent", 0), sms("failed", 5), sms("queued", 6)]),
    "failed, then being processed": (
        "processing",
        [sms("failed", 5), sms("queued", 6), sms("processing", 7)],
    ),
    "failed, then sent": ("sent", [sms("failed", 5), sms("queued", 6), sms("sent", 7)]),
    "failed, resent, failed again": (
        "failed",
        [sms("failed", 5), sms("queued", 6), sms("sent", 7), sms("failed", 8)],
    ),
    "failed twice, and queued again between": (
        "failed",
        [sms("failed", 5), sms("queued", 6), sms("failed", 8)],
    ),
    "failed, resent, delivered": (
        "delivered",
        [sms("failed", 5), sms("queued", 6), sms("sent", 7), sms("delivered", 8)],
    ),
    "resent: sent before the failure, only queued after it": (
        "queued",
        [sms("sent", 0), sms("processing", 1), sms("failed", 5), sms("queued", 6)],
    ),
    "sent at the very time of the failure is not after it": (
        "failed",
        [sms("failed", 5, id="a"), sms("sent", 5, id="b")],
    ),
    "nor does it matter which of the two has the greater id": (
        "failed",
        [sms("failed", 5, id="b"), sms("sent", 5, id="a")],
    ),
    "a microsecond after the failure is after it": (
        "sent",
        [sms("failed", 5), sms("sent", 5.000001)],
    ),
    "expired": ("failed", [sms("queued", 0), sms("expired", 5)]),
    "expired, then queued again": ("queued", [sms("expired", 5), sms("queued", 6)]),
    "cancelled": ("cancelled", [sms("queued", 0), sms("cancelled", 1)]),
    "cancelled is the end": ("cancelled", [sms("cancelled", 1), sms("sent", 9)]),
    "cancelled, then failed": ("cancelled", [sms("cancelled", 1), sms("failed", 9)]),
    "delivered beats cancelled": ("delivered", [sms("delivered", 1), sms("cancelled", 9)]),
    "the same report under two ids": (
        "sent",
        [sms("sent", 1, id="evt_a"), sms("sent", 1, id="evt_b")],
    ),
    # The phone's clock is ten seconds ahead of the server's, which writes the envelopes.
    "the phone's failed_at is later than the resend, the envelope's is not": (
        "queued",
        [sms("failed", 5, failed_at=iso(15)), sms("queued", 6, queued_at=iso(6))],
    ),
    "the phone's sent_at is later than the failure, the envelope's is not": (
        "failed",
        [sms("sent", 1, sent_at=iso(11)), sms("failed", 5, failed_at=iso(5))],
    ),
    "without envelope times the own times tell": (
        "sent",
        [sms("failed", failed_at=iso(5)), sms("sent", sent_at=iso(6))],
    ),
    "one with an envelope's time, one with its own": (
        "failed",
        [sms("failed", 5), sms("sent", sent_at=iso(4))],
    ),
    "no times at all": ("sent", [sms("queued"), sms("sent")]),
    "no times at all, and failed: a receipt is never after a failure": (
        "failed",
        [sms("failed", -60), sms("sent"), sms("queued")],
    ),
    "neither is it after a failure that has none either": ("failed", [sms("failed"), sms("sent")]),
    "a failure without times counts from its receipt": (
        "sent",
        [sms("failed", id="f"), sms("sent", 61)],
    ),
    "and what is from before that receipt is not after it": (
        "failed",
        [sms("failed", id="f"), sms("sent", 59)],
    ),
    "delivered without times": ("delivered", [sms("failed", 5), sms("delivered")]),
    "cancelled without times": ("cancelled", [sms("queued", 5), sms("cancelled")]),
    "a receipt does not hide the time of another report": (
        "sent",
        [sms("failed", 5), sms("sent", 6), sms("sent")],
    ),
    "a carried sent_at is no sent after the failure": (
        "failed",
        [sms("failed", 5, sent_at=iso(6))],
    ),
    "nor is one that an event with nothing but its receipt carries": (
        "failed",
        [sms("failed", 5), sms("queued", sent_at=iso(6))],
    ),
    "a carried delivered_at tells that it was delivered": (
        "delivered",
        [sms("sent", 5, delivered_at=iso(6))],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_status(name: str) -> None:
    expected, reports = CASES[name]
    assert became(*reports)["status"] == expected


def test_arrival_times_do_not_matter_if_the_events_have_their_own() -> None:
    early = Report("sms.sent", at(1), "evt_s", {"sent_at": iso(1)}, received_at=at(1))
    late = Report("sms.sent", at(1), "evt_s", {"sent_at": iso(1)}, received_at=at(4_000))
    assert early.row() == late.row()


# --- the times and fields shown


def shown(view: dict[str, Any]) -> dict[str, float]:
    """The times of a view, in seconds after NOW."""
    return {
        state: (view[f"{state}_at"] - NOW) / times.SECOND
        for state in STATES
        if view[f"{state}_at"] is not None
    }


@pytest.mark.parametrize(
    ("expected", "reports"),
    [
        pytest.param({"sent": 3}, [sms("sent", 5, sent_at=iso(3))], id="its own time"),
        pytest.param({"sent": 5}, [sms("sent", 5)], id="else the envelope's"),
        pytest.param({"sent": 60}, [sms("sent")], id="else the receipt"),
        pytest.param({"failed": 4}, [sms("expired", 5, failed_at=iso(4))], id="expired"),
        pytest.param(
            {"sent": 3, "delivered": 4},
            [sms("delivered", 5, sent_at=iso(3), delivered_at=iso(4))],
            id="carried times",
        ),
        pytest.param(
            {"sent": 3, "delivered": 60},
            [sms("delivered", sent_at=iso(3))],
            id="carried by an event that has no time itself",
        ),
        pytest.param(
            {"queued": 1, "sent": 3},
            [sms("sent", 5, queued_at=iso(1), sent_at=iso(3), delivered_at=None)],
            id="a carried null says nothing",
        ),
        pytest.param(
            {"sent": 2},
            [sms("sent", 5, sent_at=iso(2)), sms("sent", 4, sent_at=iso(3))],
            id="the latest envelope wins, not the latest own time",
        ),
        pytest.param(
            {"sent": 2},
            [sms("sent", 5, id="b", sent_at=iso(2)), sms("sent", 5, id="a", sent_at=iso(3))],
            id="of two at the same time the greater id wins",
        ),
        pytest.param(
            {"sent": 2},
            [
                sms("sent", 5, id="\U0001f600", sent_at=iso(2)),
                sms("sent", 5, id="\uffff", sent_at=iso(3)),
            ],
            id="ids compare by code point, not as UTF-16 does",
        ),
        pytest.param(
            {"sent": 3, "delivered": 6},
            [sms("sent", 5, sent_at=iso(2)), sms("delivered", 6, sent_at=iso(3))],
            id="a carried time has the stamp of its event",
        ),
        pytest.param(
            {"sent": 2, "delivered": 4},
            [sms("sent", 5, sent_at=iso(2)), sms("delivered", 4, sent_at=iso(3))],
            id="so an older event's carried time does not win",
        ),
        pytest.param(
            {"sent": 5},
            [sms("sent", 5, sent_at="soon"), sms("sent", 4, sent_at=iso(3))],
            id="what is no time is absent",
        ),
        pytest.param(
            {"sent": 5},
            [sms("sent", 5, sent_at=iso(-91 * 86_400))],
            id="older than the retention is absent",
        ),
        pytest.param(
            {"sent": 5},
            [sms("sent", 5, sent_at=iso(2 * 86_400))],
            id="further ahead than a day is absent",
        ),
        pytest.param(
            {"sent": 5},
            [sms("sent", 5, sent_at="2026-11-20T09:15:47+01:00")],
            id="another zone",
        ),
        pytest.param({"sent": 5}, [sms("sent", 9, sent_at="2026-11-20T08:15:47")], id="no zone"),
    ],
)
def test_times_shown(expected: dict[str, float], reports: list[Report]) -> None:
    assert shown(became(*reports)) == expected


def test_fields_are_those_of_the_latest_event_that_has_them() -> None:
    view = became(
        sms("queued", 1, to="+331", message="one", metadata={"n": 1}, priority=3),
        sms("sent", 3, to="+333", device_id="dev_3", metadata=None),
        sms("sent", 2, to="+332", device_id="dev_2", message="two"),
    )
    assert {name: view[name] for name in FIELDS} == {
        "to": "+333",
        "message": "two",
        "device_id": "dev_3",
        "metadata": {"n": 1},
        "priority": 3,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(["to", "message", "device_id"], [None, 5, 1.5, True, [], {}]),
        *itertools.product(["metadata"], [None, 5, "x", True, []]),
        *itertools.product(["priority"], [None, 1.5, True, [], {}]),
    ],
)
def test_a_field_of_the_wrong_type_says_nothing(name: str, value: Any) -> None:
    assert became(sms("sent", 1, **{name: value}))[name] is None


@pytest.mark.parametrize("value", ["high", 1, 10**30, "9" * 5_000])
def test_a_priority_is_a_number_or_a_word(value: Any) -> None:
    assert became(sms("sent", 1, priority=value))["priority"] == value


def test_a_view_has_every_key_whatever_is_known() -> None:
    assert became(sms("sent", 1)).keys() == {
        "status",
        *(f"{state}_at" for state in STATES),
        *FIELDS,
        "error",
    }


# --- the error

NO_CREDIT = {"code": "NO_CREDIT", "message": "No credit left"}
TIMEOUT = {"code": "TIMEOUT", "message": "No answer"}


@pytest.mark.parametrize(
    ("expected", "reports"),
    [
        pytest.param(NO_CREDIT, [sms("failed", 5, error=NO_CREDIT)], id="an object"),
        pytest.param(None, [sms("failed", 5)], id="none"),
        pytest.param(
            None, [sms("failed", 5, error=NO_CREDIT), sms("queued", 6)], id="not while it is resent"
        ),
        pytest.param(
            None, [sms("failed", 5, error=NO_CREDIT), sms("delivered", 6)], id="not once delivered"
        ),
        pytest.param(
            NO_CREDIT,
            [sms("failed", 5, error=NO_CREDIT), sms("queued", 6), sms("failed", 7)],
            id="of the latest failure that has one",
        ),
        pytest.param(
            TIMEOUT,
            [sms("failed", 5, error=NO_CREDIT), sms("failed", 7, error=TIMEOUT)],
            id="of the latest of two",
        ),
        pytest.param(
            TIMEOUT,
            [
                sms("failed", 5, id="a", error=NO_CREDIT),
                sms("failed", 5, id="b", error=TIMEOUT),
            ],
            id="of the greater id, at the same time",
        ),
        pytest.param(
            NO_CREDIT,
            [sms("failed", 5, error=NO_CREDIT), sms("sent", 1, error=TIMEOUT)],
            id="not that of an event that is no failure",
        ),
        pytest.param({"code": "EXPIRED", "message": None}, [sms("expired", 5)], id="expired"),
        pytest.param(
            {"code": "EXPIRED", "message": "No credit left"},
            [sms("expired", 5, error=NO_CREDIT)],
            id="expired is the code, whatever the event says",
        ),
    ],
)
def test_error_shown(expected: Any, reports: list[Report]) -> None:
    assert became(*reports)["error"] == expected


ERRORS: list[tuple[Any, dict[str, str | None] | None]] = [
    (NO_CREDIT, NO_CREDIT),
    ({"code": "X"}, {"code": "X", "message": None}),
    ({"message": "Words"}, {"code": None, "message": "Words"}),
    ({"code": "X", "message": "", "more": 1}, {"code": "X", "message": None}),
    ({"code": 5, "message": "Words"}, {"code": None, "message": "Words"}),
    ({"code": None, "message": None}, None),
    ({"code": ["X"], "message": {"a": 1}}, None),
    ({}, None),
    ("NO_CREDIT", {"code": "NO_CREDIT", "message": None}),
    ("SMS_SEND_TIMEOUT", {"code": "SMS_SEND_TIMEOUT", "message": None}),
    ("The number does not exist", {"code": None, "message": "The number does not exist"}),
    ("no_credit", {"code": None, "message": "no_credit"}),
    ("ÉCHEC", {"code": None, "message": "ÉCHEC"}),
    (json.dumps(NO_CREDIT), NO_CREDIT),
    ('{"code": "X"', {"code": None, "message": '{"code": "X"'}),
    ("{" * 50_000, {"code": None, "message": "{" * 50_000}),
    ('{"a":' * 50_000, {"code": None, "message": '{"a":' * 50_000}),
    ('{"code": %s}' % ("9" * 5_000), {"code": None, "message": '{"code": %s}' % ("9" * 5_000)}),
    ("", None),
    (None, None),
    (5, None),
    (True, None),
    (["NO_CREDIT"], None),
]


@pytest.mark.parametrize(("error", "expected"), ERRORS, ids=lambda value: repr(value)[:40])
def test_each_shape_of_an_error(error: Any, expected: Any) -> None:
    assert status.read_error("sms.failed", {"error": error}) == expected
    assert status.read_error("sms.sent", {"error": error}) is None
    assert status.read_error("otp.failed", {"error": error}) is None
    assert became(sms("failed", 5, error=error))["error"] == expected


# --- late

LATE: dict[str, tuple[bool, list[Report], Report]] = {
    "the first event of a message": (False, [], sms("sent", 1)),
    "further": (False, [sms("queued", 0)], sms("sent", 1)),
    "sent after delivered": (True, [sms("delivered", 2)], sms("sent", 1)),
    "queued after sent": (True, [sms("sent", 1)], sms("queued", 0)),
    "the same state again": (False, [sms("sent", 1)], sms("sent", 1, id="other")),
    "a failure": (False, [sms("sent", 1)], sms("failed", 2)),
    "a sent from before the failure": (True, [sms("failed", 2)], sms("sent", 1)),
    "a resend": (False, [sms("failed", 2)], sms("queued", 3)),
    "the failure before the resend": (True, [sms("queued", 3)], sms("failed", 2)),
    "a failure after delivery": (True, [sms("delivered", 2)], sms("failed", 3)),
    "sent after cancelled": (True, [sms("cancelled", 1)], sms("sent", 2)),
    "sent, and itself the news of its delivery": (
        False,
        [sms("queued", 0)],
        sms("sent", 1, delivered_at=iso(2)),
    ),
    "delivered after cancelled": (False, [sms("cancelled", 1)], sms("delivered", 2)),
}


@pytest.mark.parametrize("name", LATE)
def test_late(name: str) -> None:
    expected, earlier, report = LATE[name]
    before = fold(earlier)
    after = fold([*earlier, report])
    state = status.STATE_OF_TYPE[report.type]
    assert status.is_late(before, after, state) is expected


# --- the window of times that can be believed


@pytest.mark.parametrize(
    ("moment", "believed"),
    [
        (NOW, True),
        (NOW - RETENTION, True),
        (NOW - RETENTION - 1, False),
        (NOW + times.DAY, True),
        (NOW + times.DAY + 1, False),
    ],
)
def test_the_bounds_of_the_window(moment: int, believed: bool) -> None:
    text = times.iso(moment)
    assert status.usable_time(text, NOW, RETENTION) == (moment if believed else None)


@pytest.mark.parametrize(
    "value",
    [
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999999-23:59",
        "",
        "soon",
        None,
        True,
        NOW,
        NOW / times.SECOND,
        [],
        {},
    ],
)
def test_what_cannot_be_believed(value: Any) -> None:
    assert status.usable_time(value, NOW, RETENTION) is None


@pytest.mark.parametrize(
    "event_type", ["otp.sent", "device.connected", "fax.sent", "sms.unknown", "sms.*", "sent", ""]
)
def test_other_types_leave_the_mirror_alone(event_type: str) -> None:
    report = Report(event_type, at(1), "evt", {"to": "+331", "sent_at": iso(0), "error": "X"})
    assert report.row() is None


# --- properties of any events at all

steady = settings(derandomize=True, deadline=None, max_examples=80)

Meant = tuple[Any, Any]  # what an event holds, and what it says: None = nothing


def _time(seconds: int) -> Meant:
    return iso(seconds), at(seconds)


#: Few, so that events often tie.
moments = st.sampled_from(range(-3, 4))
carried: st.SearchStrategy[Meant] = st.sampled_from(
    [
        *map(_time, [*range(-3, 4)] * 2),
        (None, None),
        (5, None),
        ([], None),
        ({}, None),
        (True, None),
        ("", None),
        ("soon", None),
        (iso(-91 * 86_400), None),
        (iso(2 * 86_400), None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("2026-11-20T09:15:43+01:00", at(1)),
        ("2026-11-20T08:15:44", at(2)),
    ]
)
texts: st.SearchStrategy[Meant] = st.sampled_from(
    [("a", "a"), ("b", "b"), ("", ""), ("\ud800", "\ud800"), (None, None), (5, None), ([], None)]
)
OTHER_FIELDS: dict[str, st.SearchStrategy[Meant]] = {
    "to": texts,
    "message": texts,
    "device_id": texts,
    "metadata": st.sampled_from(
        [({"k": 1}, {"k": 1}), ({}, {}), (None, None), ("x", None), ([1], None)]
    ),
    "priority": st.sampled_from(
        [(1, 1), (0, 0), ("high", "high"), (None, None), (True, None), (1.5, None), ({}, None)]
    ),
    "error": st.sampled_from([error for error in ERRORS if len(str(error)) < 200]),
}
event_ids = st.sampled_from(
    ["a", "b", "B", "aa", "é", "\uffff", "\U0001f600", "~", "0", "evt_1", "evt_10", "evt_2"]
)
event_types = st.sampled_from([*status.STATE_OF_TYPE, *status.STATE_OF_TYPE, "otp.sent", "x"])


@dataclass(frozen=True)
class Generated:
    """A report, and apart from it what each of its fields means."""

    report: Report
    meant: dict[str, Any]


@st.composite
def generated(draw: st.DrawFn) -> Generated:
    held: dict[str, Meant] = draw(
        st.fixed_dictionaries(
            {}, optional={f"{state}_at": carried for state in STATES} | OTHER_FIELDS
        )
    )
    return Generated(
        Report(
            draw(event_types),
            draw(st.none() | moments.map(at)),
            draw(event_ids),
            {name: value for name, (value, _) in held.items()},
            draw(moments.map(at)),
        ),
        {name: meaning for name, (_, meaning) in held.items() if meaning is not None},
    )


event_sets = st.lists(generated(), max_size=8, unique_by=lambda one: one.report.id)


@dataclass(frozen=True)
class Claim:
    """That a field had a value, and how much that weighs."""

    name: str
    value: Any
    order: int
    event_id: str
    only_receipt: bool


def claims_of(one: Generated) -> list[Claim]:
    """CONTRACT, section 4, read literally."""
    kind, meant = one.report.type, dict(one.meant)
    if kind not in {f"sms.{state}" for state in STATES} | {"sms.expired"}:
        return []
    state = "failed" if kind == "sms.expired" else kind.removeprefix("sms.")
    error = meant.pop("error", None)
    if state == "failed":
        if kind == "sms.expired":
            error = {"code": "EXPIRED", "message": (error or {}).get("message")}
        meant["error"] = error
    own = meant.get(f"{state}_at")
    order = next(
        time for time in (one.report.timestamp, own, one.report.received_at) if time is not None
    )
    meant.setdefault(f"{state}_at", order)
    only_receipt = one.report.timestamp is None and own is None
    return [
        Claim(name, value, order, one.report.id, only_receipt)
        for name, value in meant.items()
        if value is not None
    ]


def expected_view(events: Sequence[Generated]) -> dict[str, Any]:
    """The view that the contract demands, from the set of all events at once."""
    claims = [claim for one in events for claim in claims_of(one)]

    def of(name: str) -> list[Claim]:
        return [claim for claim in claims if claim.name == name]

    def reached(state: str) -> bool:
        return bool(of(f"{state}_at"))

    def reached_after(state: str, failure: int) -> bool:
        return any(c.order > failure for c in of(f"{state}_at") if not c.only_receipt)

    walk = ("sent", "processing", "queued")
    current: str | None
    if reached("delivered"):
        current = "delivered"
    elif reached("cancelled"):
        current = "cancelled"
    elif reached("failed"):
        failure = max(claim.order for claim in of("failed_at"))
        current = next((s for s in walk if reached_after(s, failure)), "failed")
    else:
        current = next((s for s in walk if reached(s)), None)

    view: dict[str, Any] = {"status": current}
    for name in [*(f"{state}_at" for state in STATES), *FIELDS, "error"]:
        ranked = sorted(of(name), key=lambda c: (c.order, c.event_id.encode("utf-32-be")))
        view[name] = ranked[-1].value if ranked else None
    if current != "failed":
        view["error"] = None
    return view


def row_of(events: Iterable[Generated]) -> Row:
    return fold(one.report for one in events)


@steady
@given(event_sets, st.data())
def test_any_order_and_any_repeats_give_the_same_row(
    events: list[Generated], data: st.DataObject
) -> None:
    repeats = data.draw(st.lists(st.sampled_from(events), max_size=8)) if events else []
    arrivals = data.draw(st.permutations([*events, *repeats]))
    assert row_of(arrivals) == row_of(events)


@settings(steady, max_examples=250)
@given(event_sets)
def test_a_row_shows_what_the_contract_says_of_the_set(events: list[Generated]) -> None:
    row = row_of(events)
    view = status.describe(row)
    assert view == expected_view(events)
    assert view["status"] == status.status(row)


@steady
@given(event_sets, st.data())
def test_merging_is_associative_commutative_and_idempotent(
    events: list[Generated], data: st.DataObject
) -> None:
    some = st.lists(st.sampled_from(events), max_size=6) if events else st.just([])
    a, b, c = (row_of(data.draw(some)) for _ in range(3))
    assert status.merge(a, b) == status.merge(b, a)
    assert status.merge(status.merge(a, b), c) == status.merge(a, status.merge(b, c))
    assert status.merge(a, a) == a
    assert status.merge(status.merge(a, b), b) == status.merge(a, b)
    assert status.merge(a, {}) == status.merge({}, a) == a


@steady
@given(event_sets)
def test_a_row_is_bounded_can_be_stored_as_json_and_is_not_changed_by_merging(
    events: list[Generated],
) -> None:
    half = len(events) // 2
    one, other = row_of(events[:half]), row_of(events[half:])
    before = json.dumps([one, other])
    row = status.merge(one, other)
    assert json.dumps([one, other]) == before
    assert json.loads(json.dumps(row)) == row
    assert len(row) <= REGISTERS


def test_10000_events_take_no_more_room_than_the_few_that_fill_a_row() -> None:
    """Each one says everything; half of them have no time but their receipt."""
    draw = random.Random(1)
    types = list(status.STATE_OF_TYPE)

    def nth(number: int) -> Report:
        timed = number % 2 == 0
        return Report(
            types[number // 2 % len(types)],
            at(number % 1_000) if timed else None,
            f"evt_{number:06}",
            {
                **{f"{state}_at": iso(draw.randrange(60)) for state in STATES if timed},
                "to": f"+336{number:08}",
                "message": f"{number:06}",
                "device_id": f"dev_{number:06}",
                "metadata": {"n": f"{number:06}"},
                "priority": f"{number:06}",
                "error": {"code": f"E{number:06}", "message": f"{number:06}"},
            },
            received_at=at(1_000 + number % 1_000),
        )

    few = fold(nth(number) for number in range(2 * len(types)))
    many = fold(nth(number) for number in range(10_000))
    assert len(few) == len(many) == REGISTERS
    assert len(json.dumps(many)) == len(json.dumps(few))  # all ids and values are equally long
