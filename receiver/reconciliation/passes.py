"""What was missed comes back: ZimSend's API is asked what its webhooks did not bring.

One process at a time does so, on any number of machines: a turn in the store is its lease, and is
prolonged before each call. What is known of the past lies in the store as well, so whoever comes
next goes on from there, whatever became of the one before.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from receiver import times
from receiver.errors import ReceiverError
from receiver.event import Incoming
from receiver.providers.exchange import Budget
from receiver.providers.zimsend.api.client import ZimSend
from receiver.providers.zimsend.api.errors import ZimSendError
from receiver.providers.zimsend.facts import QUIET
from receiver.reconciliation import losses
from receiver.reconciliation.catching_up import CatchingUp, Found
from receiver.reconciliation.losses import Loss
from receiver.store import Report, Store
from receiver.times import DAY, HOUR, MINUTE, SECOND

log = logging.getLogger(__name__)

#: How often a pass is made.
EVERY = 10 * MINUTE
#: A pass reads again what the one before has read last: what changed too lately was left to it.
OVERLAP = QUIET + 5 * MINUTE
#: After a gap in service a pass reads so much further back: what was reported in the gap may have
#: been queued long before, and nobody says by which time the history is searched.
WIDER = DAY
#: How far back everything is read once a day: an SMS can be scheduled 30 days ahead.
DEEPEST = 31 * DAY
#: Pages of these that one pass reads; the next one goes on.
PAGES_A_PASS = 100
#: Nothing is asked for that is about to expire here: it would be learnt, and counted, again.
_ABOUT_TO_EXPIRE = HOUR

_TURN = "reconciliation"
_NOTE = "reconciliation"
#: The note of when somebody wanted a pass.
_WANTED = "reconciliation wanted"
#: Seconds that a call may take with its retries and with what ZimSend asks to wait.
_PATIENCE = 90
#: For how long a process that says nothing keeps the turn; more than a call takes.
LEASE = (_PATIENCE + 30) * SECOND
_LONGEST_NAP = 5.0


class NotOurTurn(ReceiverError):
    """Another process does it at this moment, or has taken over: leave it to that one."""


class _Stopped(ReceiverError):
    """This process is about to end."""


@dataclass(slots=True)
class State:
    """What one pass leaves to the next, of whichever process. Times are microseconds."""

    #: Nothing older is asked for: this receiver did not know ZimSend before.
    first: int
    #: From when on the next pass reads.
    since: int
    #: When the next pass is due.
    next_at: int
    #: When the last pass ended, complete or not.
    tried_at: int = 0
    #: When the last complete pass ended.
    ended_at: int | None = None
    #: Passes that begin before this read `WIDER`.
    wide_until: int = 0
    #: When the last look at the last 31 days began, and the day that it has come to.
    deep_at: int = 0
    deep_day: int | None = None
    #: How many passes in a row did not come to their end, and why the last one did not.
    failures: int = 0
    problem: str | None = None
    #: Calls of the last pass.
    calls: int = 0
    #: Messages seen as failed for the first time, and when that was: the API does not tell since
    #: when they have, and the webhook may be on its way.
    failed: dict[str, int] = field(default_factory=dict)
    #: Messages whose status was asked for, and when it may be asked for again.
    asked: dict[str, int] = field(default_factory=dict)

    def correct(self, now: int) -> None:
        """Mend what was written by a clock that was ahead."""
        if self.first > now:
            self.first = now - OVERLAP
        if self.since > now - OVERLAP:
            self.since = now - WIDER
        if self.wide_until > now + 2 * EVERY:
            self.wide_until = 0


@dataclass(slots=True)
class Pass:
    """What one pass did.

    :param problem: why it did not come to its end, in a sentence; `None` if it did.
    :param learnt: what had not arrived.
    :param waiting: messages of which more will be known in 10 minutes.
    """

    since: int
    problem: str | None = None
    calls: int = 0
    messages: int = 0
    learnt: list[tuple[str, Report]] = field(default_factory=list)
    waiting: int = 0

    @property
    def gaps(self) -> list[Loss]:
        return losses.gaps(sorted(self.learnt, key=lambda item: item[1].reported_at or 0))


class Reconciliation:
    """Passes by itself, in a thread of one process, and one on demand.

    :param learn: stores what was learnt, in one transaction; raises `StoreUnavailable`.
    :param budget: asked before each call to ZimSend.
    :param now: ZimSend's clock, in microseconds.
    :param wall: the clock on the wall, if that is another one.
    :param retention: microseconds that everything is kept.
    :param text_mode: see `parse` of the provider.
    """

    #: Seconds between two looks at whether a pass is due.
    LOOK = 5.0
    #: Seconds that these looks may be late by the wall clock; then the process was asleep.
    ASLEEP = 60.0

    def __init__(
        self,
        zimsend: ZimSend,
        store: Store,
        learn: Callable[[Sequence[Incoming]], object],
        now: Callable[[], int] = times.now,
        wall: Callable[[], int] | None = None,
        *,
        budget: Budget,
        retention: int,
        text_mode: str = "full",
    ) -> None:
        self._store = store
        self._learn = learn
        self._now = now
        self._wall = wall or now
        self._budget = budget
        self._retention = retention
        self._text_mode = text_mode
        self._zimsend = zimsend.within(tries=3, patience=_PATIENCE, budget=self)
        self._calls = 0
        #: Until when the turn is ours; `None`: we do not have it, or need none.
        self._until: int | None = None
        #: When it was noticed that webhooks may have been missed.
        self._gap_at: int | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    # --- in the background

    def start(self) -> None:
        """Run in a thread of its own. After a fork, never before one."""
        self.notice_gap()
        self._thread = threading.Thread(target=self._run, name="reconciliation", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Make no other call to ZimSend. Safe in a signal handler."""
        self._stopped.set()

    def notice_gap(self) -> None:
        """Webhooks may have been missed: make a pass soon, unless one has just been made."""
        self._gap_at = self._now()

    def want(self) -> None:
        """Somebody wants a pass now: whichever process makes them makes one soon."""
        self._store.write_note(_WANTED, str(self._now()))

    def is_wanted(self) -> bool:
        """Whether somebody wants a pass that has not ended yet."""
        return self._is_wanted(self.state(), self._now())

    def _is_wanted(self, state: State | None, now: int) -> bool:
        wanted = int(self._store.note(_WANTED) or 0)
        return now - HOUR < wanted <= now + MINUTE and (state is None or state.tried_at < wanted)

    def _run(self) -> None:
        looked = self._wall()
        while not self._stopped.wait(self.LOOK):
            gone = (self._wall() - looked) / SECOND - self.LOOK
            if abs(gone) > self.ASLEEP:
                log.info("the clock went on by %d s at once: this process was asleep", gone)
                self.notice_gap()
            try:
                self.step(self._now())
            except Exception as error:
                known = isinstance(error, ReceiverError)
                log.error(
                    "reconciliation failed and goes on: %s",
                    error,
                    exc_info=None if known else error,
                )
                self._stopped.wait(10 * self.LOOK)
            looked = self._wall()

    def step(self, now: int) -> Pass | None:
        """Make a pass, if one is due and it is this process's turn."""
        if not self._is_due(self.state(), now) or not self._claim(now):
            return None
        try:
            state = self.state()  # it may be another one since
            if not self._is_due(state, now):
                return None
            wanted = self._is_wanted(state, now)
            gap, self._gap_at = self._gap_at, None
            made = self._pass(state, wide=wanted or gap is not None, by_hand=wanted)
            if made.problem is not None:
                self._gap_at = self._gap_at or gap
            return made
        finally:
            self._release()

    def _is_due(self, state: State | None, now: int) -> bool:
        if state is None or self._is_wanted(state, now):
            return True
        gap = self._gap_at
        if gap is not None and state.ended_at is not None and gap - MINUTE <= state.ended_at <= now:
            self._gap_at = gap = None
        if gap is not None and not state.failures:
            return True
        # A time that lies further ahead was written by a clock that was wrong.
        return not now < state.next_at <= now + 2 * EVERY

    # --- on demand

    def run(
        self,
        since: int | None = None,
        *,
        dry_run: bool = False,
        progress: Callable[[Pass], None] = lambda made: None,
    ) -> Pass:
        """Make a pass now.

        :param since: read from then on, if that is further back than it would be anyway.
        :param dry_run: only see what would be learnt; changes nothing, and needs no turn.
        :param progress: told how far it has come, after each page of the history.
        :raises NotOurTurn: if another process makes one at this moment.
        """
        if dry_run:
            return self._pass(
                self.state(), wide=True, by_hand=True, since=since, dry=True, progress=progress
            )
        if not self._claim(self._now()):
            raise NotOurTurn("another process is asking ZimSend at this moment; try again later")
        try:
            return self._pass(self.state(), wide=True, by_hand=True, since=since, progress=progress)
        finally:
            self._release()

    def state(self) -> State | None:
        """What the last pass has left; `None` if there was none yet."""
        note = self._store.note(_NOTE)
        if note is None:
            return None
        told = json.loads(note)
        names = {field.name for field in dataclasses.fields(State)}
        return State(**{name: value for name, value in told.items() if name in names})

    # --- one pass

    def _pass(
        self,
        state: State | None,
        *,
        wide: bool,
        by_hand: bool = False,
        since: int | None = None,
        dry: bool = False,
        progress: Callable[[Pass], None] = lambda made: None,
    ) -> Pass:
        began = self._now()
        if state is None:
            state = State(began - OVERLAP, began - OVERLAP, began, deep_at=began)
        state.correct(began)
        if wide:
            state.wide_until = began + QUIET + MINUTE
        kept = began - self._retention + _ABOUT_TO_EXPIRE
        floor = max(state.first, kept)
        start = max(state.since - (WIDER if began < state.wide_until else 0), floor)
        if since is not None:
            start = min(start, max(since, kept))
        made = Pass(start)
        self._calls = 0

        def report(found: Found) -> None:
            made.calls, made.messages, made.waiting = self._calls, found.messages, found.waiting
            made.learnt = found.learnt
            progress(made)

        reading = CatchingUp(
            self._zimsend,
            self._store,
            (lambda items: None) if dry else self._learn,
            self._now,
            retention=self._retention,
            text_mode=self._text_mode,
            failed=state.failed,
            asked=state.asked,
            by_hand=by_hand,
            progress=report,
        )
        try:
            reading.read(start)
            reading.clear_up()
            reading.look_up()
            if not dry:
                self._end(state, began, reading.found)
                self._read_deep(state, began, floor, reading)
        except (NotOurTurn, _Stopped) as error:
            made.problem = str(error)
        except ReceiverError as error:
            made.problem = str(error)
            if not dry:
                self._fail(state, error)
        report(reading.found)
        if made.learnt and not dry:
            self._tell(made)
        return made

    def _end(self, state: State, began: int, found: Found) -> None:
        """Write down that the history has been read up to the beginning of this pass."""
        now = self._now()
        if losses.gaps(found.learnt) and began >= state.wide_until:
            # There was a gap, and this process did not notice: the next pass looks further back.
            state.wide_until = now + EVERY + MINUTE
        state.since = began - OVERLAP
        state.ended_at, state.next_at = now, began + EVERY
        state.failures, state.problem = 0, None
        self._write(state, now)

    def _fail(self, state: State, error: ReceiverError) -> None:
        now = self._now()
        state.failures += 1
        state.problem = str(error)
        wait = min(MINUTE << min(state.failures - 1, 8), EVERY)
        if isinstance(error, ZimSendError) and error.retry_after:
            wait = min(max(wait, int(error.retry_after * SECOND)), EVERY)
        state.next_at = now + wait
        log.warning("reconciliation stopped, next try in %d s: %s", wait // SECOND, state.problem)
        try:
            self._write(state, now)
        except ReceiverError as reason:
            log.warning("it could not be written down: %s", reason)

    def _write(self, state: State, now: int) -> None:
        self._keep()
        state.tried_at, state.calls = now, self._calls
        self._store.write_note(_NOTE, json.dumps(dataclasses.asdict(state)))

    def _read_deep(self, state: State, began: int, floor: int, reading: CatchingUp) -> None:
        """Go on with the last 31 days, day by day from the oldest; once a day."""
        if state.deep_day is None:
            if state.deep_at <= began < state.deep_at + DAY:
                return
            state.deep_at, state.deep_day = began, (began - DEEPEST) // DAY
        pages = 0
        state.deep_day = max(state.deep_day, floor // DAY)
        while state.deep_day is not None and pages < PAGES_A_PASS:
            day = state.deep_day * DAY
            pages += reading.read(max(day, floor), day + DAY)
            reading.clear_up()
            state.deep_day = None if day + DAY >= state.deep_at else state.deep_day + 1
        self._write(state, self._now())

    def _tell(self, made: Pass) -> None:
        for gap in made.gaps:
            log.warning(
                "ZimSend had %s that had not arrived, from %s to %s",
                gap.told(),
                times.iso(gap.first),
                times.iso(gap.last),
            )

    # --- the turn, and when a call may be made

    def take(self) -> float:
        """Whether the next call may be made; the client asks before each try.

        :raises NotOurTurn: if another process has taken over.
        """
        if self._stopped.is_set():
            raise _Stopped("this process is about to end")
        self._keep()
        wait = self._budget.take()
        if not wait:
            self._calls += 1
        return min(wait, _LONGEST_NAP)

    def _claim(self, now: int) -> bool:
        if not self._store.claim_turn(_TURN, now, now + LEASE):
            return False
        self._until = now + LEASE
        return True

    def _keep(self) -> None:
        if self._until is None:
            return  # a dry run
        later = self._now() + LEASE
        if not self._store.keep_turn(_TURN, self._until, later):
            self._until = None
            raise NotOurTurn("another process has taken over")
        self._until = later

    def _release(self) -> None:
        until, self._until = self._until, None
        if until is not None:
            with suppress(ReceiverError):  # then it runs out by itself
                self._store.keep_turn(_TURN, until, min(self._now(), self._wall()))
