"""What there is to see: in the store, in what processes have noted there, and of the disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from receiver import metrics, times
from receiver.alerts import habits
from receiver.alerts.rules import Seen
from receiver.errors import ReceiverError
from receiver.metrics import Key
from receiver.polling import Polling
from receiver.reconciliation.passes import Reconciliation
from receiver.store import Store
from receiver.worker import is_held, stuck_handlers

log = logging.getLogger(__name__)

Value = TypeVar("Value")

#: As each process adds it to the store, every 10 s.
_REFUSED = (metrics.REFUSED, "signature")


class Looking:
    """One service's eyes."""

    def __init__(
        self,
        store: Store,
        reconciliations: Mapping[str, Reconciliation],
        polling: Polling | None,
    ) -> None:
        self._store = store
        self._reconciliations = reconciliations
        self._polling = polling

    def look(self, now: int) -> Seen:
        """What cannot be found out is left out; the next look may."""
        counters = self._try(self._store.counters)
        return Seen(
            missed=None if counters is None else self._missed(counters),
            dead=self._try(lambda: dict(self._store.dead_of_handlers())),
            stuck=self._try(lambda: stuck_handlers(self._store, now)),
            oldest=self._try(lambda: self._oldest(now)),
            refused=None if counters is None else counters.get(_REFUSED, 0),
            silent=self._try(lambda: self._silent(now)),
            failing=self._try(self._failing),
            room=self._try(self._store.room),
        )

    def _try(self, look: Callable[[], Value]) -> Value | None:
        try:
            return look()
        except ReceiverError as error:
            log.warning("what alerts are told of could not be looked at: %s", error)
        except Exception:
            log.exception("what alerts are told of cannot be looked at")
        return None

    def _missed(self, counters: Mapping[Key, int]) -> dict[str, int]:
        return {
            reconciliation.account.title: sum(
                counters.get((metrics.MISSED, name, kind), 0) for kind in metrics.KINDS
            )
            for name, reconciliation in self._reconciliations.items()
        }

    def _oldest(self, now: int) -> int:
        """Of all handlers for which there is work, also those that nobody has."""
        if is_held(self._store):
            return 0
        _, age = self._store.backlog(now, self._store.owed())
        return age

    def _silent(self, now: int) -> dict[str, int]:
        if now < times.RELEASED:
            return {}
        last = {
            phone: at
            for phone, at in self._store.last_heard().items()
            if habits.is_to_judge(at, now)
        }
        spans = [span for phone, at in last.items() for span in habits.spans(phone, at, now)]
        counts = self._store.heard(spans, habits.ENOUGH) if spans else []
        return {
            phone: at
            for number, (phone, at) in enumerate(last.items())
            if habits.is_too_long(counts[number * habits.SPANS : (number + 1) * habits.SPANS])
        }

    def _failing(self) -> dict[str, str]:
        found = {}
        for reconciliation in self._reconciliations.values():
            state = reconciliation.state()
            if state is not None and state.problem is not None:
                found[reconciliation.account.title] = state.problem
        went = None if self._polling is None else self._polling.went()
        if went is not None and went.problem is not None:
            found["sipgate"] = went.problem
        return found
