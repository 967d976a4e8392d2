"""What a pass has learnt had not arrived, and the gaps that it makes. Pure.

Of all that is stored the database tells the same: see `receiver.store.contract.Mirror.missed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from receiver.store import Report
from receiver.times import MINUTE

#: What ZimSend reports by webhook.
KINDS = ("sent", "delivered", "failed")
#: Reports less than this apart belong to one gap.
TOGETHER = 10 * MINUTE


@dataclass(slots=True)
class Loss:
    """Reports that had not arrived: of how many messages, of which kinds, from when to when."""

    first: int
    last: int
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    message_ids: set[str] = field(default_factory=set)

    @property
    def reports(self) -> int:
        return sum(self.counts.values())

    @property
    def messages(self) -> int:
        return len(self.message_ids)

    def add(self, message_id: str, kind: str, at: int) -> None:
        self.first, self.last = min(self.first, at), max(self.last, at)
        self.counts[kind] += 1
        self.message_ids.add(message_id)

    def told(self) -> str:
        """Like `12 reports of 7 messages (7 sent, 5 delivered)`."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count)
        return (
            f"{_counted(self.reports, 'report')} of {_counted(self.messages, 'message')} ({kinds})"
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def gaps(learnt: Iterable[tuple[str, Report]]) -> list[Loss]:
    """The gaps that reports make, oldest first.

    :param learnt: message ids and reports, by time; what ZimSend never reports is passed over.
    """
    found: list[Loss] = []
    for message_id, report in learnt:
        kind, at = report.type.removeprefix("sms."), report.reported_at
        if kind not in KINDS or at is None:
            continue
        if not found or at >= found[-1].last + TOGETHER:
            found.append(Loss(at, at))
        found[-1].add(message_id, kind, at)
    return found


def total(found: Iterable[Loss]) -> Loss | None:
    """All gaps as one; `None` if there is none."""
    whole: Loss | None = None
    for loss in found:
        if whole is None:
            whole = Loss(loss.first, loss.last)
        whole.first, whole.last = min(whole.first, loss.first), max(whole.last, loss.last)
        whole.message_ids |= loss.message_ids
        for kind, count in loss.counts.items():
            whole.counts[kind] += count
    return whole
