"""When something is told: of looks alone, with any times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.alerts.rules import RULES, Message, Seen, State, judge
from receiver.times import DAY, HOUR, MINUTE, RELEASED, SECOND

T0 = RELEASED + 1_000 * DAY
NUMBER = "+33612345678"
WELL = Seen({"ZimSend": 0}, {}, (), 0, 0, {}, {}, 0.5)


class Life:
    """Looks one after another; each goes on from what the one before has written down."""

    def __init__(self) -> None:
        self.state = State()
        self.now = T0
        self.told: list[tuple[int, Message]] = []

    def look(self, seen: Seen = WELL, after: int = 15 * SECOND) -> list[Message]:
        self.now += after
        messages, state = judge(seen, self.state, self.now)
        self.state = State.from_json(state.to_json())
        assert self.state == state
        self.told += [(self.now, message) for message in messages]
        return messages


def seen(**different: Any) -> Seen:
    fields = {name: getattr(WELL, name) for name in Seen.__slots__}
    return Seen(**{**fields, **different})


#: By rule: what is bad, and a word of its message.
BAD: Mapping[str, tuple[Seen, str]] = {
    "missed": (seen(missed={"ZimSend": 12}), "12 reports of ZimSend's"),
    "dead": (seen(dead={"my.handler": 3}), "my.handler"),
    "stuck": (seen(stuck=("my.handler",)), "my.handler"),
    "backlog": (seen(oldest=15 * MINUTE + 1), "15 minutes"),
    "refused": (seen(refused=10), "10 webhooks"),
    "silent": (seen(silent={"dev_1": T0 - 5 * HOUR}), "dev_1"),
    "failing": (seen(failing={"SMS.CX": "its key is wrong"}), "its key is wrong"),
    "room": (seen(room=0.0999), "10.0%"),
}


def test_each_rule_is_tried() -> None:
    assert list(BAD) == [rule.name for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_one_message_when_it_opens_and_one_when_it_ends(rule: Any) -> None:
    life = Life()
    bad, word = BAD[rule.name]
    assert life.look() == []
    opened = 0
    while not life.look(bad):
        opened += 15 * SECOND
        assert opened <= rule.opens_after
    ((_, message),) = life.told
    assert message.bad
    assert message.title.lower() == rule.title
    assert word in message.text
    assert rule.todo in message.text
    for _ in range(20):  # what has been counted is bad for a while
        assert life.look(bad) == []
    counted = {"missed": {"missed": {"ZimSend": 12}}, "refused": {"refused": 10}}
    well = seen(**counted.get(rule.name, {}))
    last = life.now
    if rule.name in counted:
        last = opened_at = life.told[0][0]
        last += {"missed": 30 * MINUTE, "refused": 5 * MINUTE}[rule.name] - 15 * SECOND
        assert opened_at < last
    while not life.look(well):
        assert life.now < last + 2 * MINUTE
    (ended,) = [message for _, message in life.told[1:]]
    assert 60 * SECOND <= life.now - last <= 75 * SECOND
    assert not ended.bad
    assert word in ended.text
    for _ in range(10):
        assert life.look(well) == []
    assert not life.state.troubles


def test_less_than_that_is_not_told() -> None:
    life = Life()
    nearly = seen(oldest=15 * MINUTE, refused=9, room=0.1, dead={"my.handler": 0})
    life.look()
    for _ in range(20):
        assert life.look(nearly) == []


def test_what_was_before_the_first_look_is_not_told() -> None:
    life = Life()
    for _ in range(5):
        assert life.look(seen(missed={"ZimSend": 900}, refused=5_000)) == []


def test_a_burst_is_one_within_five_minutes() -> None:
    life = Life()
    life.look()
    for count in range(1, 60):  # one a minute
        assert life.look(seen(refused=count), MINUTE) == []


def test_a_failure_that_passes_in_time_is_not_told() -> None:
    life = Life()
    failing = BAD["failing"][0]
    for _ in range(5):
        for _ in range(29 * 4):
            assert life.look(failing) == []
        for _ in range(5):
            assert life.look() == []


def test_fifty_flaps_in_a_minute_are_one_message() -> None:
    life = Life()
    for flap in range(100):
        life.look(WELL if flap % 2 else BAD["stuck"][0], 600_000)
    assert len(life.told) == 1
    for _ in range(20):
        life.look()
    assert [message.bad for _, message in life.told] == [True, False]


def test_while_it_lasts_it_is_told_once_a_day() -> None:
    life = Life()
    for _ in range(3 * 24 * 60 + 1):
        life.look(BAD["dead"][0], MINUTE)
    assert len(life.told) == 4
    assert life.told[1][1].title.startswith("Still: ")
    assert life.told[1][0] - life.told[0][0] == DAY


def test_what_could_not_be_seen_is_neither_good_nor_bad() -> None:
    life = Life()
    life.look()
    for bad, _ in BAD.values():
        life.look(bad)
    before = set(life.state.troubles)
    told = len(life.told)
    for _ in range(50):
        life.look(Seen(), MINUTE)
    assert set(life.state.troubles) == before
    assert len(life.told) == told


def test_many_phones_are_one_message_that_names_ten() -> None:
    life = Life()
    (message,) = life.look(seen(silent={f"dev_{n}": T0 - HOUR for n in range(500)}))
    assert message.text.count("dev_") == 10
    assert "490 more" in message.text


def test_each_handler_is_told_of_by_itself() -> None:
    life = Life()
    life.look(seen(dead={"a": 1}))
    (second,) = life.look(seen(dead={"a": 5, "b": 2}))
    assert "handler b" in second.text
    assert "handler a" not in second.text


@pytest.mark.parametrize("name", [NUMBER, "06 12 34 56 78", f"x {NUMBER}\n\x1b[2J", NUMBER * 9])
def test_no_message_holds_a_whole_number_or_breaks_its_line(name: str) -> None:
    for bad in (
        seen(dead={name: 1}),
        seen(stuck=(name,)),
        seen(silent={name: T0}),
        seen(failing={"ZimSend": name}),
    ):
        messages, _ = judge(bad, State(), T0)
        messages, _ = (
            judge(bad, judge(bad, State(), T0)[1], T0 + HOUR)
            if not messages
            else (
                messages,
                None,
            )
        )
        (message,) = messages
        for hidden in ("612345678", "12345678", "06 12 34 56 78", "\x1b"):
            assert hidden not in message.text
        assert len(message.text.splitlines()) == 2


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"counts": 3}', '{"troubles": [1]}'])
def test_what_another_release_wrote_is_as_nothing(text: str | None) -> None:
    assert State.from_json(text) == State()


looks = st.lists(
    st.tuples(st.integers(1, 90), st.sampled_from(["bad", "well", "unknown"])), max_size=80
)


@settings(max_examples=40)
@given(looks)
def test_it_opens_at_once_ends_after_a_minute_and_is_never_told_twice(
    looks: list[tuple[int, str]],
) -> None:
    """Against what the contract says, step by step."""
    life = Life()
    is_open, last_bad = False, 0
    for seconds, kind in looks:
        look = {"bad": BAD["dead"][0], "well": WELL, "unknown": Seen()}[kind]
        messages = life.look(look, seconds * SECOND)
        if kind == "bad":
            assert [m.bad for m in messages] == ([] if is_open else [True])
            is_open, last_bad = True, life.now
        elif kind == "well" and is_open and life.now - last_bad >= MINUTE:
            assert [m.bad for m in messages] == [False]
            is_open = False
        else:
            assert messages == []


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(-2 * DAY, 2 * DAY), st.booleans()), max_size=40))
def test_whatever_the_clock_does_openings_and_ends_alternate(
    looks: list[tuple[int, bool]],
) -> None:
    life = Life()
    for step, bad in looks:
        life.look(BAD["room"][0] if bad else WELL, step)
    kinds = [m.bad for _, m in life.told if not m.title.startswith("Still")]
    assert kinds == [number % 2 == 0 for number in range(len(kinds))]
    # From now on the clock goes right: it ends, and nothing is left.
    for _ in range(10):
        life.look()
    assert not life.state.troubles
