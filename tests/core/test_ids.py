"""Ids of several providers: their keys never meet, and each is found by what is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import ids
from receiver.event import clean_id

PROVIDERS = sorted(ids.NAMES)
own_ids = (
    st.one_of(
        st.text(max_size=30),
        st.builds(lambda name, rest: f"{name}:{rest}", st.sampled_from(PROVIDERS), st.text()),
        st.builds(lambda name: f"{name.upper()}:1", st.sampled_from(PROVIDERS)),
        st.sampled_from(["a/b", "a:b", ":", "smscx", "smscx:", "SmsCX:1", "zimsend:zimsend:1"]),
    )
    .map(clean_id)
    .filter(bool)
)
named = st.tuples(st.sampled_from(PROVIDERS), own_ids)


@given(named)
def test_a_key_tells_its_provider_and_its_id(one: tuple[str, str]) -> None:
    assert ids.split(ids.key(*one)) == one


@given(named, named)
def test_two_ids_never_meet(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (ids.key(*one) == ids.key(*other)) == (one == other)
    assert (ids.written(ids.key(*one)) == ids.written(ids.key(*other))) == (one == other)


@given(named)
def test_what_is_written_is_read_again(one: tuple[str, str]) -> None:
    assert ids.read(ids.written(ids.key(*one))) == ids.key(*one)


@pytest.mark.parametrize(
    ("provider", "own_id", "written"),
    [
        ("zimsend", "msg_1", "msg_1"),
        ("zimsend", "order:1", "order:1"),
        ("zimsend", "api:msg_1", "api:msg_1"),
        ("zimsend", "smscx:1", "zimsend:smscx:1"),
        ("zimsend", "SMSCX:1", "zimsend:SMSCX:1"),
        ("zimsend", "Twilio:1", "zimsend:Twilio:1"),
        ("zimsend", "zimsend:1", "zimsend:zimsend:1"),
        ("smscx", "9b1e", "smscx:9b1e"),
        ("sipgate", "a/b:c", "sipgate:a/b:c"),
    ],
)
def test_how_ids_are_written(provider: str, own_id: str, written: str) -> None:
    assert ids.written(ids.key(provider, own_id)) == written


def test_an_id_of_zimsends_is_read_as_it_is() -> None:
    assert ids.read("msg_1") == "msg_1"
    assert ids.read("SMSCX:1") == "SMSCX:1"
