"""What was missed, in gaps."""

from __future__ import annotations

from receiver.reconciliation import losses
from receiver.times import SECOND
from tests.providers.zimsend.reports import BEGAN, report


def test_gaps_are_counted() -> None:
    learnt = [
        ("a", report("sent", 0)),
        ("a", report("delivered", 10)),
        ("b", report("queued", 300)),
        ("b", report("failed", 599)),
        ("c", report("sent", 1199)),
        ("d", report("processing", 5000)),
    ]
    first, second = losses.gaps(learnt)
    assert (first.first, first.last) == (BEGAN, BEGAN + 599 * SECOND)
    assert (first.messages, first.counts) == (2, {"sent": 1, "delivered": 1, "failed": 1})
    assert first.told() == "3 reports of 2 messages (1 sent, 1 delivered, 1 failed)"
    assert (second.told(), second.first) == ("1 report of 1 message (1 sent)", second.last)
    whole = losses.total([first, second])
    assert whole is not None
    assert (whole.messages, whole.reports, whole.last) == (3, 4, second.last)
    assert (losses.gaps([]), losses.total([])) == ([], None)
