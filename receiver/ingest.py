"""From many requests to one transaction: group commit, and failing fast.

Requests put tickets into a bounded queue. A thread, the committer, takes what has queued, commits
it in one transaction, and hands all outcomes over at once. It starts with the first ticket of its
process. Where the store writes several groups at once, there are as many committers, and another
one begins when enough has queued behind those that commit. The queue refuses what could not be
committed in time anyway, and while the store is known to be stuck one ticket at a time tries it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from receiver import threads
from receiver.errors import StoreUnavailable, is_shortage
from receiver.event import Incoming, Rejected
from receiver.forks import renew_in_forks
from receiver.store import Outcome, Store

log = logging.getLogger(__name__)

Item = Incoming | Rejected

#: Seconds from the last byte of a request, and from its first one, until its commit must be there;
#: and what is left for the commit at least, however long the body took.
FROM_LAST_BYTE = 3.5
FROM_FIRST_BYTE = 4.5
AT_LEAST = 1.0
_DEAD = "a thread that commits has died; restart this process"


def deadline_for(first_byte: float, last_byte: float) -> float:
    """When a request's commit must be there; all times by `time.monotonic`."""
    return max(min(last_byte + FROM_LAST_BYTE, first_byte + FROM_FIRST_BYTE), last_byte + AT_LEAST)


class Ticket:
    """What one request wants stored, and what became of it.

    :param deadline: by `time.monotonic`; nobody waits for it after that.
    :param tell: called with all tickets of a group that have this same function, by a committer,
        once their ends are known.
    """

    __slots__ = ("deadline", "error", "items", "outcomes", "size", "tell")

    def __init__(
        self, items: Sequence[Item], deadline: float, tell: Callable[[list[Ticket]], None]
    ) -> None:
        self.items = items
        self.deadline = deadline
        self.tell = tell
        self.size = sum(len(item.body or b"") for item in items)
        self.outcomes: Sequence[Outcome] | None = None
        self.error: Exception | None = None

    @property
    def ended(self) -> bool:
        return self.outcomes is not None or self.error is not None

    def result(self) -> Sequence[Outcome]:
        """
        :raises StoreUnavailable: if it was not stored in time. It may still come to be stored; its
            next delivery is then a duplicate.
        """
        if self.outcomes is None:
            raise self.error or StoreUnavailable("the commit was interrupted")
        return self.outcomes


class Ingest:
    """The only way into the store for events and for what quarantine keeps."""

    #: Items in one transaction at most: it bounds how long others wait for it.
    LARGEST_GROUP = 128
    #: While one group is written, the one before it is answered, and those who sent it send again.
    #: So a group is at most half of all that is under way: with all in one, either the committer
    #: waits or the answers do. But a transaction costs as much as many tickets, and more where the
    #: disk is slow: no half is smaller than this, and nothing is halved where commits take longer.
    SMALLEST_HALF = 8
    LONGEST_TO_HALVE = 0.005
    #: What may queue: tickets, and bytes of their bodies.
    MOST_TICKETS = 4_000
    MOST_BYTES = 32 * 1024 * 1024
    #: Tickets that queue while a group is being committed, from which on another committer takes
    #: them: a transaction costs as much as many tickets.
    WORTH_ANOTHER = 16
    #: Seconds that commits take, or that one has taken so far, from which on another one takes
    #: whatever queues: the database is far away, or one message is locked.
    LONG = 0.05
    #: Seconds that a transaction may take while the store is known to be stuck: so long 503s may
    #: remain after it works again. Longer than a round trip to any database.
    PROBE_PATIENCE = 2.0
    #: Seconds after a failure, and seconds into a probe, in which others are refused beside the
    #: probe. Before that they queue behind it: the failure may be long ago.
    KNOWN_FOR = 1.0
    SLOW_PROBE = 0.25
    #: Seconds that `stop` waits for a commit at most.
    STOP_WITHIN = 1.0
    #: Seconds for which a failure is told of: whoever sends requests by what `/readyz` says must
    #: send one now and then, for nothing else finds out that the store works again.
    TOLD_FOR = 10.0
    #: Seconds after which a commit hangs, longer than any request waits. It is told while it does.
    HANGS = 5.0

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
        #: Guards all below; never held while the store works.
        self._guard: threading.Lock
        renew_in_forks(self, "_guard", threading.Lock)
        self._queue: deque[Ticket] = deque()
        self._queued_bytes = self._queued_items = 0
        #: Tickets that are being committed, or whose ends are not handed over yet.
        self._in_hand = 0
        self._committers: list[threading.Thread] = []
        #: Each committer sleeps on one of its own; those of the ones that sleep.
        self._bells: list[threading.Event] = []
        #: When the groups that are being committed were begun, by the bells of their committers.
        self._begun: dict[threading.Event, float] = {}
        self._process: int | None = None
        #: The process in which a committer has died.
        self._dead_in: int | None = None
        self._ending = False
        self._stuck = False
        #: The last failure, and the last commit; by `time.monotonic`.
        self._failed_at = self._committed_at = 0.0
        #: Seconds that a commit takes, lately.
        self._usual = 0.0

    # --- for requests

    def put(self, *tickets: Ticket) -> None:
        """Queue tickets. Never blocks; a ticket's `tell` is called when its end is known.

        :raises StoreUnavailable: if they could not be committed in time; none has queued then.
        """
        with self._guard:
            if self._process != os.getpid():
                self._start()
            self._refuse_what_is_hopeless(tickets[-1])
            self._queue.extend(tickets)
            self._queued_bytes += sum(ticket.size for ticket in tickets)
            self._queued_items += sum(len(ticket.items) for ticket in tickets)
            self._wake_another()

    def give_up(self, ticket: Ticket) -> None:
        """Its deadline has passed: nobody waits for it any more."""
        with self._guard:
            if ticket.ended:
                return
            ticket.error = StoreUnavailable("the store does not commit in time")
        self._declare_stuck("a commit takes longer than a request can wait")

    def submit(self, item: Item) -> Outcome:
        """Store one item durably; when this returns, it is on the disk.

        :raises StoreUnavailable: see `Ticket.result`.
        """
        return self.submit_all([item])[0]

    def submit_all(self, items: Sequence[Item], deadline: float | None = None) -> list[Outcome]:
        """Store several items that came at once, in as few transactions as it takes.

        :param deadline: by `time.monotonic`; that of a request that has just come by default.
        :raises StoreUnavailable: as `Ticket.result`, if it was so of any of them.
        """
        told = threading.Lock()
        told.acquire()
        counting = threading.Lock()
        left = len(items)

        def tell(tickets: list[Ticket]) -> None:
            nonlocal left
            with counting:
                left -= len(tickets)
                if not left:
                    told.release()

        now = time.monotonic()
        deadline = deadline_for(now, now) if deadline is None else deadline
        tickets = [Ticket([item], deadline, tell) for item in items]
        if not tickets:
            return []
        self.put(*tickets)
        if not told.acquire(timeout=max(0.0, deadline - time.monotonic())):
            for ticket in tickets:
                self.give_up(ticket)
        return [outcome for ticket in tickets for outcome in ticket.result()]

    def stop(self) -> None:
        """End the committers as soon as nothing has queued. A ticket that comes later is committed
        as well, by a committer that ends after it."""
        with self._guard:
            if self._process != os.getpid():
                return
            self._ending = True
            for bell in self._bells:
                bell.set()
            self._bells = []
            committers = list(self._committers)
        until = time.monotonic() + self.STOP_WITHIN
        for committer in committers:
            committer.join(max(0.0, until - time.monotonic()))

    @property
    def problem(self) -> str | None:
        """Why nothing is stored at this moment; `None` where nothing speaks against it."""
        if self.has_died:
            return _DEAD
        now = time.monotonic()
        lately = self._stuck and now - self._failed_at < self.TOLD_FOR
        return "no commit succeeds" if lately or self._all_hang(now) else None

    @property
    def has_died(self) -> bool:
        """Whether nothing will be stored in this process any more."""
        return self._dead_in == os.getpid()

    def _all_hang(self, now: float) -> bool:
        """Whether each committer has had a group in hand for `HANGS`, with no commit meanwhile. A
        group whose items are committed one by one may take longer than that."""
        with self._guard:
            begun = [max(at, self._committed_at) for at in self._begun.values()]
            hanging = sum(now - at > self.HANGS for at in begun)
            return self._process == os.getpid() and 0 < len(self._committers) <= hanging

    @property
    def waiting(self) -> int:
        """How many tickets have queued."""
        return len(self._queue)

    def _refuse_what_is_hopeless(self, ticket: Ticket) -> None:
        """Needs the guard."""
        if self.has_died:
            raise StoreUnavailable(_DEAD)
        now = time.monotonic()
        if self._stuck and (self._queue or self._under_way):
            probing = now - min(self._under_way, default=now)
            if now - self._failed_at < self.KNOWN_FOR or probing > self.SLOW_PROBE:
                raise StoreUnavailable("the store is stuck, and another request is probing it")
        if len(self._queue) >= self.MOST_TICKETS or self._queued_bytes >= self.MOST_BYTES:
            raise StoreUnavailable("more is waiting for the store than this process may hold")
        groups = self._queued_items // self.LARGEST_GROUP + bool(self._begun)
        if now + groups * self._usual > ticket.deadline:
            raise StoreUnavailable("more is waiting than the store commits in time")

    @property
    def _under_way(self) -> list[float]:
        """When the groups were begun that are being committed. What hangs from before the store was
        found to be stuck keeps no other committer from a probe. Needs the guard."""
        begun = list(self._begun.values())
        if self._stuck and len(begun) < len(self._committers):
            return [at for at in begun if at >= self._failed_at]
        return begun

    @property
    def _is_worth_another(self) -> bool:
        """Whether one more committer is to take what has queued. Needs the guard."""
        under_way = self._under_way
        if self._ending or not under_way:
            return bool(self._queue)
        taken = time.monotonic() - min(under_way)
        enough = 1 if max(taken, self._usual) > self.LONG else self.WORTH_ANOTHER
        return len(self._queue) >= enough and not self._stuck

    def _wake_another(self) -> None:
        """Wake a committer, if one is needed and sleeps. Needs the guard."""
        if not self._is_worth_another:
            return
        if self._bells:
            bell = self._bells.pop()
            self._begun[bell] = time.monotonic()
            bell.set()
        elif not self._ending:  # there may have been no thread for it before
            self._start_missing()

    # --- the committers

    def _start(self) -> None:
        """In this process, which may be a fork of one where there were some. Needs the guard.

        :raises StoreUnavailable: if not even one can be started; the next ticket tries again.
        """
        self._empty_queue()
        self._in_hand = 0
        self._bells, self._begun = [], {}
        self._committers = []
        self._start_missing()
        if not self._committers:
            error = "this process has no thread to commit with"
            self._declare_stuck(error)
            raise StoreUnavailable(error)
        self._process = os.getpid()

    def _start_missing(self) -> None:
        """Needs the guard."""
        while len(self._committers) < self._store.committers:
            committer = threads.begin(self._run, "committer")
            if committer is None:
                return
            self._committers.append(committer)

    def _empty_queue(self) -> list[Ticket]:
        """Returns what was in it. Needs the guard."""
        waiting = [ticket for ticket in self._queue if not ticket.ended]
        self._queue.clear()
        self._queued_bytes = self._queued_items = 0
        return waiting

    def _run(self) -> None:
        group: list[Ticket] | None = []
        bell = threading.Event()
        #: Committed, and not handed over yet.
        untold: list[Ticket] = []

        def tell_untold() -> None:
            told = untold[:]
            untold.clear()
            self._tell(told)
            with self._guard:
                self._in_hand -= len(told)

        try:
            while (group := self._next_group(bell, tell_untold)) is not None:
                if group:
                    self._commit(group, tell_untold)
                tell_untold()
                untold += group
                group = []
            tell_untold()
        except BaseException:
            self._dead_in = os.getpid()  # first: what follows may fail for want of memory, too
            try:
                tell_untold()
            finally:
                self._die(group or [])
                log.critical("a committer has died, restart this process", exc_info=True)

    def _next_group(
        self, bell: threading.Event, before_sleep: Callable[[], None]
    ) -> list[Ticket] | None:
        """What has queued, up to a bound, without what nobody waits for. Sleeps until there is.

        :returns: `None` at the end.
        """
        # Nobody rings when another committer begins to take long.
        watching = self.LONG if self._store.committers > 1 else None
        while True:
            with self._guard:
                bell.clear()
                self._begun.pop(bell, None)
                if bell in self._bells:
                    self._bells.remove(bell)
                if self._ending and not self._queue:
                    self._leave()
                    return None
                if self._is_worth_another:
                    group = self._take()
                    self._begun[bell] = time.monotonic()
                    self._wake_another()
                    return group
                self._bells.append(bell)
            before_sleep()
            bell.wait(watching)

    def _take(self) -> list[Ticket]:
        """Needs the guard."""
        group: list[Ticket] = []
        size = 0
        most = self._half or self.LARGEST_GROUP
        while self._queue and len(group) < most:
            more = len(self._queue[0].items)
            if group and size + more > self.LARGEST_GROUP:
                break
            ticket = self._queue.popleft()
            self._queued_bytes -= ticket.size
            self._queued_items -= more
            if not ticket.ended:
                group.append(ticket)
                size += more
        self._in_hand += len(group)
        return group

    @property
    def _half(self) -> int | None:
        """Of all tickets that are under way; `None` where another group is written meanwhile, or a
        half is not worth a transaction. Needs the guard."""
        half = (len(self._queue) + self._in_hand + 1) // 2
        worth = half >= self.SMALLEST_HALF and self._usual <= self.LONGEST_TO_HALVE
        return half if worth and not self._begun else None

    def _leave(self) -> None:
        """This committer ends; after the last one a ticket starts others. Needs the guard."""
        with suppress(ValueError):
            self._committers.remove(threading.current_thread())
        if not self._committers:
            self._process = None

    def _commit(self, group: Sequence[Ticket], tell_untold: Callable[[], None]) -> None:
        """Commit a group, or give each of it an error."""
        began = time.monotonic()
        # As long as anybody waits: who cannot wait so long is answered meanwhile, and one who has
        # little time left does not spoil it for the others.
        patience = max(ticket.deadline for ticket in group) - began
        if self._stuck:
            patience = min(patience, self.PROBE_PATIENCE)
        try:
            items = [item for ticket in group for item in ticket.items]
            # The group before is handed over while the database writes this one: what the event
            # loop makes of it then runs beside that, and not beside this thread's Python.
            outcomes = self._store.ingest(items, self._wanting, max(patience, 0.0), tell_untold)
        except Exception as raised:
            error = raised
            if is_shortage(raised):
                error = StoreUnavailable(str(raised) or type(raised).__name__)
            if not isinstance(error, StoreUnavailable):
                self._commit_alone(group, error, tell_untold)
                return
            self._fail(group, error)
            if self._committed_at > began:
                return  # another group is written meanwhile: it was this one's own trouble
            self._declare_stuck(str(error))
            with self._guard:  # whoever queued meanwhile would only wait for the same failure
                waiting = self._empty_queue()
                self._fail(waiting, error)
            self._tell(waiting)
        else:
            at = 0
            for ticket in group:
                ticket.outcomes = outcomes[at : at + len(ticket.items)]
                at += len(ticket.items)
            self._committed_at = time.monotonic()
            self._usual += (self._committed_at - began - self._usual) / 8
            if self._stuck:
                self._stuck = False
                log.warning("the store commits again")
                self.on_recovery()
            self._on_commit()

    def _commit_alone(
        self, group: Sequence[Ticket], error: Exception, tell_untold: Callable[[], None]
    ) -> None:
        """One of a group is bad: it alone shall fail."""
        if len(group) == 1:
            self._fail(group, error)
            return
        for ticket in group:
            if not ticket.ended:
                self._commit([ticket], tell_untold)

    @staticmethod
    def _fail(tickets: Sequence[Ticket], error: Exception) -> None:
        for ticket in tickets:
            ticket.error = error

    @staticmethod
    def _tell(tickets: Sequence[Ticket]) -> None:
        """Hand the ends over: once for all that are told by the same function."""
        by: dict[Callable[[list[Ticket]], None], list[Ticket]] = {}
        for ticket in tickets:
            by.setdefault(ticket.tell, []).append(ticket)
        for tell, told in by.items():
            try:
                tell(told)
            except Exception:  # an event loop that has ended
                log.debug("nobody is there to be told", exc_info=True)

    def _declare_stuck(self, why: str) -> None:
        self._failed_at = time.monotonic()
        if not self._stuck:
            self._stuck = True
            log.error("the store is stuck, answering 503 until it commits again: %s", why)

    def _die(self, group: Sequence[Ticket]) -> None:
        """Nobody commits any more: end what waits."""
        with self._guard:
            waiting = [*group, *self._empty_queue()]
            error = StoreUnavailable(_DEAD)
            self._fail([ticket for ticket in waiting if not ticket.ended], error)
        self._tell(waiting)
