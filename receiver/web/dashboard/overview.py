"""The overview: what became of the SMS of the last days, and what somebody should look at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from flask import Response, request

from receiver import mirror, times
from receiver.mirror import Search
from receiver.parts import Receiver, parts
from receiver.polling import Went
from receiver.providers import by_report
from receiver.reconciliation.losses import KINDS, TOGETHER
from receiver.reconciliation.planning import State
from receiver.times import DAY
from receiver.web.dashboard.pages import blueprint, page
from receiver.web.dashboard.phones import Phone, phones_of
from receiver.web.dashboard.troubles import troubles_of

#: Numbers of days that one can choose from; the first is usual.
PERIODS = (7, 1, 30, 90)
#: Of events that phones have told of themselves, so many are looked at.
_EVENTS_OF_PHONES = 200
#: Rows of a table here; there is a page or a command for the rest.
_MOST = 10


class Sums(NamedTuple):
    """What became of some messages.

    :param unreported: sent through a provider that reports no delivery. They are neither pending
        nor in the rate.
    """

    sent: int
    delivered: int
    failed: int
    pending: int
    unreported: int
    rate: float | None

    @classmethod
    def of(cls, counts: Iterable[tuple[str, str, int]]) -> Sums:
        """
        :param counts: providers, statuses and numbers of messages.
        """
        reported, silent = (
            [(0, state, count) for _, _, state, count in part]
            for part in by_report((0, *one) for one in counts)
        )
        told, rated = mirror.statistics(reported, silent), mirror.statistics(reported)
        return cls(
            told["total_sent"],
            told["delivered"],
            told["failed"],
            told["pending"],
            sum(count for _, state, count in silent if state in mirror.PENDING),
            rated["delivery_rate"] if rated["total_sent"] else None,
        )

    def __bool__(self) -> bool:
        return any((self.sent, self.pending, self.unreported))


@blueprint.get("/")
def overview() -> Response:
    receiver = parts()
    asked = request.args.get("days", "")
    days = int(asked) if asked in map(str, PERIODS) else PERIODS[0]
    today = receiver.now() // DAY
    first = today - days + 1

    def counted(*by: Any) -> list[tuple[Any, ...]]:
        return receiver.store.statistics(first, None, None, by=(*by, "provider"))

    by_day = _grouped(counted("day"))
    known = [day for day in by_day if day > today]  # a sender's clock is ahead
    span = range(first, max([today, *known]) + 1)
    failures = mirror.failures((c, n) for c, _, state, n in counted("code") if state == "failed")
    by_device = _largest(_grouped(counted("device_id")))
    return page(
        "overview.html",
        days=days,
        periods=sorted(PERIODS),
        whole=Sums.of(one for day in by_day.values() for one in day),
        by_day=[(day, Sums.of(by_day.get(day, ()))) for day in span],
        by_device=by_device,
        by_provider=_largest(_grouped(counted("provider"))),
        failures=failures[:_MOST],
        failures_in_all=len(failures),
        ever=bool(by_day) or _is_anything_there(receiver),
        since=times.iso(first * DAY)[:10],
        troubles=list(troubles_of(receiver)),
        phones=_phones(receiver, [device for device, _ in by_device if device]),
        missed=_missed(receiver),
        oldest=min(receiver.store.oldest_due(receiver.now()).values(), default=None),
        last_pass=_last_pass(receiver),
        now=receiver.now(),
    )


def _grouped(counts: Iterable[tuple[Any, ...]]) -> dict[Any, list[tuple[str, str, int]]]:
    groups: dict[Any, list[tuple[str, str, int]]] = {}
    for value, provider, state, count in counts:
        groups.setdefault(value, []).append((provider, state, count))
    return groups


def _largest(groups: dict[str, list[tuple[str, str, int]]]) -> list[tuple[str, Sums]]:
    """Those of most messages."""
    sums = [(value, Sums.of(counts)) for value, counts in groups.items()]
    sums.sort(key=lambda one: (-(one[1].sent + one[1].pending + one[1].unreported), one[0]))
    return [(value, of) for value, of in sums if of][:_MOST]


def _is_anything_there(receiver: Receiver) -> bool:
    """Whether a message is known at all, test or not."""
    return receiver.store.latest() is not None


def _phones(receiver: Receiver, devices: list[str]) -> list[Phone]:
    """Those that have sent most, and those that have told of themselves; the last heard of first.

    :param devices: the ids of the first.
    """
    found = phones_of(receiver.store.of_phones(_EVENTS_OF_PHONES))
    for device in devices:
        latest = receiver.store.listed(Search(device_id=device), None, 1)
        phone = found.setdefault(device, Phone(device))
        for (at, _), _ in latest:
            phone.heard = max(at, phone.heard or at)
    return sorted(found.values(), key=lambda phone: -(phone.heard or 0))[:_MOST]


def _last_pass(receiver: Receiver) -> int | None:
    """When all providers had been asked for all that may be missing."""
    went: list[State | Went | None] = [
        passes.state() for passes in receiver.reconciliations.values()
    ]
    if receiver.polling is not None:
        went.append(receiver.polling.went())
    ended = [None if one is None else one.ended_at for one in went]
    return min((at for at in ended if at is not None), default=None) if all(ended) else None


def _missed(receiver: Receiver) -> int:
    """How many reports of those that are kept had to be asked for."""
    whole, _, _ = receiver.store.missed([f"sms.{kind}" for kind in KINDS], TOGETHER, 1)
    return 0 if whole is None else sum(whole.counts)
