"""The overview: what became of the SMS of the last days, and what somebody should look at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from flask import Response, request

from receiver import mirror, times
from receiver.parts import Receiver, parts
from receiver.times import DAY
from receiver.web.dashboard.pages import blueprint, page
from receiver.web.dashboard.troubles import troubles_of

#: Numbers of days that one can choose from; the first is usual.
PERIODS = (7, 1, 30, 90)
#: Rows of a table here; there is a page or a command for the rest.
_MOST = 10


class Sums(NamedTuple):
    """What became of some messages."""

    sent: int
    delivered: int
    failed: int
    pending: int
    rate: float | None

    @classmethod
    def of(cls, counts: Iterable[tuple[str, int]]) -> Sums:
        """
        :param counts: statuses and numbers of messages.
        """
        told = mirror.statistics((0, state, count) for state, count in counts)
        rate = told["delivery_rate"] if told["total_sent"] else None
        return cls(told["total_sent"], told["delivered"], told["failed"], told["pending"], rate)


@blueprint.get("/")
def overview() -> Response:
    receiver = parts()
    asked = request.args.get("days", "")
    days = int(asked) if asked in map(str, PERIODS) else PERIODS[0]
    today = receiver.now() // DAY
    first = today - days + 1

    def counted(*by: Any) -> list[tuple[Any, ...]]:
        return receiver.store.statistics(first, None, None, by=by)

    by_day = _grouped(counted("day"))
    known = [day for day in by_day if day > today]  # a sender's clock is ahead
    span = range(first, max([today, *known]) + 1)
    failures = mirror.failures((c, n) for c, state, n in counted("code") if state == "failed")
    providers = _grouped(counted("provider"))
    return page(
        "overview.html",
        days=days,
        periods=sorted(PERIODS),
        whole=Sums.of((state, n) for day in by_day for state, n in by_day[day]),
        by_day=[(day, Sums.of(by_day.get(day, ()))) for day in span],
        by_device=_largest(_grouped(counted("device_id"))),
        by_provider=_largest(providers),
        failures=failures[:_MOST],
        failures_in_all=len(failures),
        ever=bool(by_day) or _is_anything_there(receiver),
        since=times.iso(first * DAY)[:10],
        troubles=list(troubles_of(receiver)),
    )


def _grouped(counts: Iterable[tuple[Any, ...]]) -> dict[Any, list[tuple[str, int]]]:
    groups: dict[Any, list[tuple[str, int]]] = {}
    for value, state, count in counts:
        groups.setdefault(value, []).append((state, count))
    return groups


def _largest(groups: dict[str, list[tuple[str, int]]]) -> list[tuple[str, Sums]]:
    """Those of most messages."""
    sums = [(value, Sums.of(counts)) for value, counts in groups.items()]
    sums.sort(key=lambda one: (-(one[1].sent + one[1].pending), one[0]))
    return [(value, of) for value, of in sums if of.sent or of.pending][:_MOST]


def _is_anything_there(receiver: Receiver) -> bool:
    """Whether a message is known at all, test or not."""
    return receiver.store.latest() is not None
