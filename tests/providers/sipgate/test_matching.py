"""Which entry of sipgate's history is which of our sends: nothing is guessed or used twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.providers.sipgate.history import Entry, digest, number, read
from receiver.providers.sipgate.matching import SKEW, Send, pair
from receiver.times import MINUTE, SECOND, iso

NOON = 1_795_600_800 * SECOND
SAMPLE: dict[str, Any] = {
    "id": "5005443120",
    "type": "SMS",
    "direction": "OUTGOING",
    "incoming": False,
    "source": "+4915799000001",
    "target": "+4915799000002",
    "created": "2026-11-20T08:15:42Z",
    "lastModified": "2026-11-20T08:15:42Z",
    "status": "PICKUP",
    "connectionIds": ["s0"],
    "archived": False,
    "smsContent": "Hello",
    "scheduled": None,
}


def send(name: str, at: int = NOON, text: str = "Hello", to: str = "4915799000002") -> Send:
    return Send(name, "s0", to, digest(text), at)


def entry(name: str, at: int = NOON, **changes: Any) -> Entry:
    found = read(SAMPLE | {"id": name, "created": iso(at)} | changes)
    assert found is not None
    return found


def matches(sends: list[Send], entries: list[Entry]) -> list[tuple[str, str]]:
    return [(s.id, e.id) for s, e in pair(sends, entries).matches]


def test_the_entry_of_a_send_is_found() -> None:
    assert matches([send("a")], [entry("1", NOON + SECOND)]) == [("a", "1")]


def test_equal_texts_to_one_number_pair_off_in_order() -> None:
    sends = [send("later", NOON + MINUTE), send("earlier", NOON)]
    entries = [entry("2", NOON + MINUTE + SECOND), entry("1", NOON + SECOND)]
    assert matches(sends, entries) == [("earlier", "1"), ("later", "2")]


def test_where_counts_differ_nothing_is_guessed_and_nothing_is_a_message_of_its_own() -> None:
    sends = [send("a", NOON), send("b", NOON + SECOND)]
    paired = pair(sends, [entry("1", NOON + 2 * SECOND)])
    assert paired.matches == []
    assert paired.foreign == []
    paired = pair(sends[:1], [entry("1", NOON), entry("2", NOON)])
    assert paired.matches == []
    assert paired.foreign == []


def test_what_was_written_in_the_app_is_nobody_s_here() -> None:
    other = [
        entry("text", smsContent="Hallo"),
        entry("number", target="+4915799000009"),
        entry("extension", connectionIds=["s1"]),
        entry("before", NOON - SKEW - SECOND),
    ]
    paired = pair([send("a")], other)
    assert paired.matches == []
    assert [e.id for e in paired.foreign] == ["text", "number", "extension", "before"]


@pytest.mark.parametrize("untold", [{"smsContent": None}, {"connectionIds": []}])
def test_an_entry_that_tells_too_little_waits_while_it_may_be_a_send(
    untold: dict[str, Any],
) -> None:
    unclear = entry("1", **untold)
    assert pair([send("a")], [unclear]) == ([], [])
    assert pair([], [unclear]).foreign == [unclear]


def later(name: str, at: int) -> Send:
    return send(name, at)._replace(scheduled=True)


def test_who_surely_has_no_entry_yet_keeps_nobody_else_waiting() -> None:
    sends = [send("now"), later("tomorrow", NOON + 1440 * MINUTE)]
    assert matches(sends, [entry("1", NOON + SECOND)]) == [("now", "1")]
    again = [send("lost", NOON + 10 * MINUTE), send("first", NOON)]
    assert matches(again, [entry("1", NOON + SECOND)]) == [("first", "1")]
    # The other's may be late, and this one the first's.
    assert matches(again, [entry("2", NOON + 11 * MINUTE)]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"created": iso(NOON + 60 * MINUTE)},
        {"created": iso(NOON), "scheduled": (NOON + 60 * MINUTE) // SECOND},
        {"created": iso(NOON), "scheduled": iso(NOON + 60 * MINUTE)},
        {"created": iso(NOON + 60 * MINUTE), "scheduled": iso(NOON + 60 * MINUTE)},
    ],
)
def test_a_scheduled_send_is_found_however_its_entry_tells(changes: dict[str, Any]) -> None:
    found = entry("1", **changes)
    assert matches([later("a", NOON + 60 * MINUTE)], [found]) == [("a", "1")]
    assert found.moment == NOON + 60 * MINUTE


def test_a_clock_that_is_behind_does_not_cross_what_is_scheduled_and_what_is_not() -> None:
    """By their times alone, the entry of `now` would be before that of `planned`."""
    planned, now = later("planned", NOON), send("now", NOON + 20 * SECOND)
    behind = 50 * SECOND
    theirs = [
        entry("p", NOON - 10 * MINUTE, scheduled=NOON // SECOND),
        entry("n", now.at - behind),
    ]
    assert sorted(matches([planned, now], theirs)) == [("now", "n"), ("planned", "p")]


def test_a_scheduled_send_is_not_what_went_out_before() -> None:
    assert pair([later("a", NOON + 60 * MINUTE)], [entry("1", NOON)]).matches == []
    assert len(pair([later("a", NOON + 60 * MINUTE)], [entry("1", NOON)]).foreign) == 1


def test_what_somebody_else_has_scheduled_is_no_send_of_now() -> None:
    other = entry("1", NOON, scheduled=iso(NOON + 60 * MINUTE))
    assert [e.id for e in pair([send("a")], [other]).foreign] == ["1"]


def test_an_entry_that_is_listed_twice_counts_once() -> None:
    one = entry("1")
    assert matches([send("a")], [one, one]) == [("a", "1")]
    assert matches([send("a"), send("b")], [one, one]) == []


def test_an_entry_from_before_a_send_is_not_its() -> None:
    early, late = send("a", NOON), send("b", NOON + 10 * MINUTE)
    assert matches([early, late], [entry("1", NOON), entry("2", NOON + SECOND)]) == []


@pytest.mark.parametrize(
    "written",
    [
        "+49 (0)1579 9912345",
        "+4915799912345",
        "01579-9912345",
        "0049 1579 9912345",
        "+49 (1579) 9912345",
    ],
)
def test_numbers_are_compared_in_one_form(written: str) -> None:
    assert number(written) == "4915799912345"


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "CALL"},
        {"direction": "INCOMING"},
        {"id": None},
        {"id": ""},
        {"created": "soon"},
        {"target": None},
    ],
)
def test_what_is_no_sms_on_its_way_out_is_passed_over(changes: dict[str, Any]) -> None:
    assert read(SAMPLE | changes) is None


@pytest.mark.parametrize("anything", [None, [], "text", 1, {}, {"type": "SMS"}])
def test_anything_may_stand_in_a_history(anything: Any) -> None:
    assert read(anything) is None


def test_an_id_may_be_a_number_and_a_time_as_programs_write_it() -> None:
    found = read(SAMPLE | {"id": 17, "created": "2026-11-20 08:15:42.5 UTC"})
    assert found is not None
    assert (found.id, found.created % SECOND) == ("17", SECOND // 2)


def test_direction_decides_and_incoming_does_not() -> None:
    assert read(SAMPLE | {"incoming": True}) is not None


@pytest.mark.parametrize(
    ("scheduled", "expected"),
    [
        (1_795_600_800, NOON),
        ("2026-11-25T10:00:00Z", NOON),
        (None, None),
        ("later", None),
        (True, None),
        (1_795_600_800_000, NOON),
        ("1795600800", NOON),
    ],
)
def test_scheduled_has_no_documented_form(scheduled: Any, expected: int | None) -> None:
    found = read(SAMPLE | {"scheduled": scheduled})
    assert found is not None
    assert found.scheduled == expected


few = st.integers(0, 3)
sends_of = st.lists(
    st.builds(lambda at, text: (NOON + at * SECOND, f"text {text}"), st.integers(0, 200), few),
    max_size=6,
)


@given(sends_of, st.lists(st.integers(0, 90), min_size=6, max_size=6), st.sets(few))
def test_no_entry_serves_two_sends_and_none_is_paired_with_another_text(
    asked: list[tuple[int, str]], delays: list[int], lost: set[int]
) -> None:
    sends = [send(str(i), at, text) for i, (at, text) in enumerate(asked)]
    entries = [
        entry(f"e{s.id}", s.at + delay * SECOND, smsContent=asked[int(s.id)][1])
        for s, delay in zip(sends, delays, strict=False)
        if int(s.id) not in lost
    ]
    paired = pair(sends, entries)
    used = [e.id for _, e in paired.matches] + [e.id for e in paired.foreign]
    assert len(set(used)) == len(used)
    assert len({s.id for s, _ in paired.matches}) == len(paired.matches)
    for matched, found in paired.matches:
        assert matched.text == found.text
        assert found.created >= matched.at - SKEW
    if not lost:
        assert len(paired.matches) == len(sends)
