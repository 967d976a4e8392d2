"""What `/metrics` tells: one table, which docs/reference/metrics.md follows. Pure.

Names are those of Prometheus' conventions: base units, `_total` for what only grows. A number is
kept under a key: a metric's name and the values of its labels, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Literal

from receiver.times import SECOND

#: Before each name.
PREFIX = "zimsend_receiver_"

Key = tuple[str, ...]

#: Where a number comes from, and so what a kill can cost it:
#: `row`: from what is stored, in the transaction of that or later from the rows. It costs nothing.
#: `process`: it leaves no row, so each process counts it and adds it to the store now and then.
#: `state`: what the store holds at this moment; it goes up and down.
Source = Literal["row", "process", "state"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    :param labels: their names.
    :param meaning: one sentence, for people.
    :param bounds: of a histogram's buckets, in seconds; none for any other.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    source: Source
    meaning: str
    bounds: tuple[float, ...] = ()


ACCEPTED = "events_accepted_total"
DUPLICATES = "events_duplicate_total"
REFUSED = "requests_refused_total"
ACKNOWLEDGED = "ack_duration_seconds"
DELIVERIES = "deliveries_total"
HANDLED = "handler_duration_seconds"
MISSED = "reports_missed_total"
RETRIES = "retries_seen_total"
EXPIRED = "expired_messages_total"

#: The causes of `REFUSED`.
CAUSES = ("signature", "body", "size", "store", "path")
#: The ends of `DELIVERIES`: of work, and of an attempt that is followed by another.
ENDS = ("done", "dead", "failed")
#: The kinds of `MISSED`.
KINDS = ("sent", "delivered", "failed")
#: Whatever type no provider documents.
OTHER = "other"

METRICS = (
    Metric(
        ACCEPTED,
        "counter",
        ("provider", "type"),
        "row",
        "Events that are new and stored; types that no provider documents are `other`.",
    ),
    Metric(
        DUPLICATES,
        "counter",
        (),
        "process",
        "Events that were answered `duplicate`: they were stored before.",
    ),
    Metric(
        REFUSED,
        "counter",
        ("cause",),
        "process",
        "Webhooks that were not accepted: `signature` 401, `body` 400, `size` 413, `store` 503, "
        "`path` 404 where a webhook was probably meant.",
    ),
    Metric(
        ACKNOWLEDGED,
        "histogram",
        (),
        "process",
        "From the last byte of a webhook to its 200.",
        (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    ),
    Metric(
        DELIVERIES,
        "counter",
        ("handler", "end"),
        "process",
        "Ends of calls: `done` and `dead` end the work, `failed` is tried again.",
    ),
    Metric(
        HANDLED,
        "histogram",
        ("handler",),
        "process",
        "How long a handler's calls took; a call past its time-out counts once, at that moment.",
        (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0),
    ),
    Metric("work_due", "gauge", ("handler",), "state", "Work that is due, and waits."),
    Metric(
        "work_oldest_due_seconds",
        "gauge",
        ("handler",),
        "state",
        "For how long the oldest of it has waited; 0 if nothing does.",
    ),
    Metric("work_dead", "gauge", ("handler",), "state", "Work that was given up, and is kept."),
    Metric(
        "messages",
        "gauge",
        ("status",),
        "state",
        "Messages that are kept, by their status; tests among them.",
    ),
    Metric(
        MISSED,
        "counter",
        ("provider", "kind"),
        "row",
        "Reports that did not arrive, and were fetched from the provider.",
    ),
    Metric(
        RETRIES,
        "counter",
        (),
        "process",
        "Duplicates from a provider that repeats what was not answered in time.",
    ),
    Metric(
        "reconciliation_last_success_timestamp_seconds",
        "gauge",
        ("provider",),
        "state",
        "When the provider's history was last read to its end; sipgate's, too, which reports "
        "nothing.",
    ),
    Metric(EXPIRED, "counter", (), "row", "Messages that were deleted after `RETENTION_DAYS`."),
    Metric("store_bytes", "gauge", (), "state", "What the database takes on its disk."),
    Metric(
        "snapshot_age_seconds",
        "gauge",
        (),
        "state",
        "How old all these numbers are; it grows while the store cannot be read.",
    ),
    Metric("build_info", "gauge", ("version", "python"), "state", "1; by its labels, what runs."),
)
#: Of each histogram.
BOUNDS = {metric.name: metric.bounds for metric in METRICS if metric.bounds}


# --- histograms: a bucket and a sum are counters of whole numbers


@cache
def _keys(name: str, labels: Key) -> tuple[list[Key], Key]:
    bounds = [*map(str, BOUNDS[name]), "+Inf"]
    return [(f"{name}_bucket", *labels, bound) for bound in bounds], (f"{name}_sum", *labels)


def of_observations(key: Key, cells: Sequence[float]) -> dict[Key, int]:
    """What observations add: to each bucket, which holds none of the others, and to the sum.

    :param key: a histogram's name, and the values of its labels.
    :param cells: how many there were in each bucket, and all their seconds.
    """
    buckets, total = _keys(key[0], key[1:])
    *numbers, seconds = cells
    counts = {bucket: int(n) for bucket, n in zip(buckets, numbers, strict=True) if n}
    return counts | {total: round(seconds * SECOND)}


def histogram(
    name: str, labels: Key, counts: Mapping[Key, int]
) -> tuple[list[tuple[str, float]], float]:
    """The buckets as Prometheus wants them, each with all that are below it, and the sum.

    :param counts: what `of_observations` has added up to.
    """
    buckets, total = _keys(name, labels)
    numbers = accumulate(counts.get(key, 0) for key in buckets)
    return [(key[-1], number) for key, number in zip(buckets, numbers, strict=True)], counts.get(
        total, 0
    ) / SECOND


# --- what rows say


def of_arrivals(rows: Iterable[tuple[str, str, bool, int]]) -> dict[Key, int]:
    """What new events add.

    :param rows: their provider, their type, whether they are reports that were missed, how many.
    """
    counts: dict[Key, int] = {}
    for provider, kind, is_missed, number in rows:
        keys = [(ACCEPTED, provider, kind)]
        state = kind.removeprefix("sms.")
        if is_missed and state in KINDS:
            keys.append((MISSED, provider, state))
        for key in keys:
            counts[key] = counts.get(key, 0) + number
    return counts
