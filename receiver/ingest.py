"""From many requests to one transaction: group commit, and failing fast while the store is stuck.

A request that finds nobody committing leads: it commits for all that have queued, then hands on to
the first that has queued meanwhile. No thread of its own, nothing to start or to die.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from receiver.errors import StoreUnavailable
from receiver.event import Incoming, Rejected
from receiver.store import Outcome, Store

log = logging.getLogger(__name__)

Item = Incoming | Rejected


class _Ticket:
    """One request's item, and what became of it."""

    __slots__ = ("error", "item", "leads", "outcome", "since", "told")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.since = time.monotonic()
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        #: Its request is to commit the next group.
        self.leads = False
        #: Held until there is something to know: an end, or that it leads.
        self.told = threading.Lock()
        self.told.acquire()

    @property
    def ended(self) -> bool:
        return self.outcome is not None or self.error is not None


class Ingest:
    """The only way into the store for events and for what quarantine keeps.

    The provider waits 5 seconds, and part of them pass before a thread is free for the request.
    So nobody waits longer than `PATIENCE`; and once a commit has failed, one request at a time
    probes the store with little patience while all others fail at once, until a commit succeeds.
    """

    #: Seconds that a request waits for its commit.
    PATIENCE = 2.5
    #: Seconds of these that a transaction waits for other writers.
    LOCK_PATIENCE = 2.0
    #: Seconds that a probe waits, while the store is known to be stuck.
    PROBE_PATIENCE = 0.5
    #: Seconds after a failure in which the others need not wait for the probe. It may be long ago
    #: where few requests come.
    KNOWN_FOR = 1.0
    #: Items in one transaction at most: it bounds how long others wait for it.
    LARGEST_GROUP = 128

    def __init__(
        self,
        store: Store,
        wanting: Callable[[str], Sequence[str]],
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        """
        :param wanting: the names of the handlers that want an event type.
        :param on_commit: called after each commit, to wake the worker of this process.
        """
        self._store = store
        self._wanting = wanting
        self._on_commit = on_commit
        #: Called when the store, after it was stuck, commits again.
        self.on_recovery: Callable[[], None] = lambda: None
        self._queue: deque[_Ticket] = deque()
        #: Guards the queue and who leads; never held while the store works.
        self._guard = threading.Lock()
        self._led = False
        self._stuck = False
        self._failed_at = 0.0  # by `time.monotonic`

    def submit(self, item: Item) -> Outcome:
        """Store one item durably; when this returns, it is on the disk.

        :raises StoreUnavailable: if that was not possible in time. It may still come to be
            stored; its next delivery is then a duplicate.
        """
        ticket = _Ticket(item)
        self._queue_up([ticket])
        self._see_through(ticket)
        if ticket.outcome is None:
            raise ticket.error or StoreUnavailable("the commit was interrupted")
        return ticket.outcome

    def submit_all(self, items: Sequence[Item]) -> None:
        """Store several items that came at once, in as few transactions as it takes.

        :raises StoreUnavailable: as `submit`, if it was so of any of them.
        """
        tickets = [_Ticket(item) for item in items]
        if tickets:
            self._queue_up(tickets)
        # Each of them to its end, whatever became of others: one may have been made the leader.
        for ticket in tickets:
            self._see_through(ticket)
        for ticket in tickets:
            if ticket.outcome is None:
                raise ticket.error or StoreUnavailable("the commit was interrupted")

    def _queue_up(self, tickets: Sequence[_Ticket]) -> None:
        with self._guard:
            known = time.monotonic() - self._failed_at < self.KNOWN_FOR
            if self._led and self._stuck and known:
                raise StoreUnavailable("the store is stuck, and another request is probing it")
            self._queue.extend(tickets)
            if not self._led:
                self._led = tickets[0].leads = True

    def _see_through(self, ticket: _Ticket) -> None:
        """Wait for a ticket's end, leading if it falls to it."""
        patience = max(0.0, ticket.since + self.PATIENCE - time.monotonic())
        if not ticket.leads and not ticket.told.acquire(timeout=patience):
            with self._guard:
                if not ticket.leads and not ticket.ended:
                    ticket.error = StoreUnavailable("the store does not commit in time")
                    self._declare_stuck("a commit takes longer than a request can wait")
        if ticket.leads:
            ticket.told.acquire(blocking=False)  # also where the wait ended just before the word
            self._lead()

    def _lead(self) -> None:
        """Commit the group at the head of the queue, hand on, and tell those who wait.

        The next leader comes first: its commit runs while this group's answers are written.
        """
        with self._guard:
            group = self._next_group()
        try:
            self._commit(group)
        finally:
            with self._guard:
                while self._queue and self._queue[0].ended:
                    self._queue.popleft()
                self._led = bool(self._queue)
                if self._queue:
                    self._queue[0].leads = True
                    self._queue[0].told.release()
            for ticket in group:
                ticket.told.release()

    def _next_group(self) -> list[_Ticket]:
        """Take what has queued, without those who have stopped waiting. Needs the guard."""
        group: list[_Ticket] = []
        while self._queue and len(group) < self.LARGEST_GROUP:
            ticket = self._queue.popleft()
            if not ticket.ended:
                group.append(ticket)
        return group

    def _commit(self, group: Sequence[_Ticket]) -> None:
        """Commit a group, or give each of it an error."""
        patience = self.PROBE_PATIENCE if self._stuck else self.LOCK_PATIENCE
        oldest = min(ticket.since for ticket in group)
        patience = min(patience, oldest + self.PATIENCE - time.monotonic())
        try:
            outcomes = self._store.ingest([t.item for t in group], self._wanting, patience)
        except StoreUnavailable as error:
            self._declare_stuck(str(error))
            self._fail(group, error)
            with self._guard:  # whoever queued meanwhile would only wait for the same failure
                waiting = list(self._queue)
                self._queue.clear()
                self._fail(waiting, error)
            for ticket in waiting:
                ticket.told.release()
        except Exception as error:
            if len(group) == 1:
                self._fail(group, error)
                return
            for ticket in group:  # one of them is bad: it alone shall fail
                if not ticket.ended:
                    self._commit([ticket])
        else:
            for ticket, outcome in zip(group, outcomes, strict=True):
                ticket.outcome = outcome
            if self._stuck:
                self._stuck = False
                log.warning("the store commits again")
                self.on_recovery()
            self._on_commit()

    @staticmethod
    def _fail(group: Sequence[_Ticket], error: Exception) -> None:
        for ticket in group:
            ticket.error = error

    def _declare_stuck(self, why: str) -> None:
        self._failed_at = time.monotonic()
        if not self._stuck:
            self._stuck = True
            log.error("the store is stuck, answering 503 until it commits again: %s", why)
