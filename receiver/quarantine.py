"""What becomes of a body in quarantine that is tried again."""

from __future__ import annotations

from typing import Any

from receiver import times
from receiver.config import Config
from receiver.errors import StoreUnavailable, Unusable, is_shortage
from receiver.event import Incoming
from receiver.ingest import Ingest
from receiver.providers import provider_of
from receiver.store import Outcome, Store, stored_as


def retry(
    entry: dict[str, Any], store: Store, ingest: Ingest, config: Config, now: int
) -> list[tuple[str, Outcome]]:
    """Let a body in by the usual door; then, and only then, out of quarantine.

    :returns: the keys of its events and what became of each; nothing, if it is still of no use.
    :raises StoreUnavailable: if it cannot be stored now.
    """
    try:
        return _retry(entry, store, ingest, config, now)
    except StoreUnavailable:
        raise
    except Exception as error:
        if is_shortage(error):
            raise StoreUnavailable("this process is short of files or memory") from error
        return []  # the defect that has brought it here is still there


def _retry(
    entry: dict[str, Any], store: Store, ingest: Ingest, config: Config, now: int
) -> list[tuple[str, Outcome]]:
    if entry["body"] is None:
        return []
    try:
        items = provider_of(entry["digest"]).parse(
            entry["body"],
            # Later than now if the clock was wrong when it came, which made it look too old.
            received_at=min(entry["received_at"], times.receipt(now)),
            retention=config.retention,
            text_mode=config.text_mode,
        )
    except Unusable:
        return []
    if not any(isinstance(item, Incoming) for item in items):
        return []
    outcomes = ingest.submit_all(items)
    ends = [
        stored_as(item, outcome)
        for item, outcome in zip(items, outcomes, strict=True)
        if isinstance(item, Incoming)
    ]
    if all(outcome == "quarantined" for _, outcome in ends):
        return []
    store.release(entry["digest"])
    return [(item.id, outcome) for item, outcome in ends]
