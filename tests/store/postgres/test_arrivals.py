"""Numbers of events are given out before the commit: a reader of arrivals misses none."""

from __future__ import annotations

from typing import Any

import psycopg

from receiver.store.postgres import PostgresStore
from receiver.store.views import MAY_STILL_COME
from tests.store.postgres.work import NOW, ingest, sent

# As a process that has got its numbers and has not committed yet.
_SLOWLY = """
INSERT INTO events
SELECT (one).* FROM (
    SELECT jsonb_populate_record(
        e, jsonb_build_object('seq', nextval('event_seqs'), 'id', %s::text)) AS one
    FROM events AS e ORDER BY seq LIMIT 1) AS slowly
"""


def told(events: list[tuple[int, dict[str, Any]]]) -> list[str]:
    return [event["event_id"] for _, event in events]


def test_who_commits_later_with_a_smaller_number_is_not_missed(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    ingest(store, sent("m1", event_id="e1"))
    position = store.position(0)
    assert store.arrivals(position, NOW, 10) == ([], position)
    with outside.transaction():
        outside.execute(_SLOWLY, ("slow",))
        outside.execute(_SLOWLY, ("slow too",))
        ingest(store, sent("m2", event_id="e2"))
        found, position = store.arrivals(position, NOW, 10)
        assert told(found) == ["e2"]
        assert store.arrivals(position, NOW, 10)[0] == []
    ingest(store, sent("m3", event_id="e3"))
    found, between = store.arrivals(position, NOW, 1)
    assert told(found) == ["slow"]
    assert told(store.arrivals(between, NOW, 10)[0]) == ["slow too", "e3"]
    found, position = store.arrivals(position, NOW, 10)
    assert told(found) == ["slow", "slow too", "e3"]
    assert store.arrivals(position, NOW, 10) == ([], position)
    assert position.missing == ()


def test_a_number_that_never_comes_is_forgotten(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    ingest(store, sent("m1", event_id="e1"))
    position = store.position(0)
    outside.execute("SELECT nextval('event_seqs')")
    ingest(store, sent("m1", event_id="e1"))  # a copy: its number is not used
    ingest(store, sent("m2", event_id="e2"))
    found, position = store.arrivals(position, NOW, 10)
    assert told(found) == ["e2"]
    assert len(position.missing) == 1
    _, later = store.arrivals(position, NOW + MAY_STILL_COME, 10)
    assert (later.seq, later.missing) == (position.seq, ())
