"""A message's row: properties of any events at all.

They are held against an oracle that knows nothing of registers and merging.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from receiver import status
from receiver.status import FIELDS, STATES, Row
from tests.core.rows import ERRORS, REGISTERS, Report, at, fold, iso

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
    [("a", "a"), ("b", "b"), ("", ""), ("\ud800", "\ud800"), (None, None), (1.5, None), ([], None)]
)
words = texts | st.sampled_from([(5, "5"), (0, "0"), (True, None)])
OTHER_FIELDS: dict[str, st.SearchStrategy[Meant]] = {
    "to": words,
    "message": texts,
    "device_id": words,
    "metadata": st.sampled_from(
        [
            ({"k": 1}, {"k": 1}),
            ({}, {}),
            ('{"k": 2}', {"k": 2}),
            (None, None),
            ("x", None),
            ([1], None),
        ]
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

    view: dict[str, Any] = {"status": current, "test": False}
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
