"""A message's row: a function of the set of its events, and the status that follows from it.

Cases that a person would ask about, each tried in every order of arrival. Properties of any
events at all: `test_status_properties.py`.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from receiver import status, times
from receiver.status import FIELDS, STATES
from tests.core.rows import (
    ERRORS,
    NO_CREDIT,
    NOW,
    RETENTION,
    TIMEOUT,
    Report,
    at,
    became,
    fold,
    iso,
    sms,
)

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
        *itertools.product(["to", "device_id"], [None, 1.5, True, [], {}]),
        *itertools.product(["message"], [None, 5, 1.5, True, [], {}]),
        *itertools.product(
            ["metadata"], [None, 5, "x", "5", "[1]", '{"a": 1', "{" * 999, True, []]
        ),
        *itertools.product(["priority"], [None, 1.5, True, [], {}]),
    ],
)
def test_a_field_of_the_wrong_type_says_nothing(name: str, value: Any) -> None:
    assert became(sms("sent", 1, **{name: value}))[name] is None


@pytest.mark.parametrize("name", ["to", "device_id"])
@pytest.mark.parametrize("number", [0, 33612345678, -5, 10**400])
def test_a_whole_number_is_its_digits(name: str, number: int) -> None:
    assert became(sms("sent", 1, **{name: number}))[name] == str(number)


@pytest.mark.parametrize("text", ['{"order": 17}', ' {"order": 17}\n', '{"order": 1, "order": 17}'])
def test_metadata_may_be_json_in_a_string(text: str) -> None:
    assert became(sms("sent", 1, metadata=text))["metadata"] == {"order": 17}


@pytest.mark.parametrize("value", ["high", 1, 10**30, "9" * 5_000])
def test_a_priority_is_a_number_or_a_word(value: Any) -> None:
    assert became(sms("sent", 1, priority=value))["priority"] == value


def test_a_view_has_every_key_whatever_is_known() -> None:
    assert became(sms("sent", 1)).keys() == {
        "status",
        *(f"{state}_at" for state in STATES),
        *FIELDS,
        "error",
        "test",
    }


# --- the error


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
        NOW / times.SECOND - 91 * 86_400,
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
