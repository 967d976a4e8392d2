"""What was missed comes back: a provider's account is asked what its reports did not bring.

One process at a time does so for an account, on any number of machines: a turn in the store is its
lease, and is prolonged before each call. What is known of the past lies in the store as well, so
whoever comes next goes on from there, whatever became of the one before. Each account has an engine
of its own, with its own thread, turn, note and budget, so none waits for another.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from receiver import ids, times, turns
from receiver.errors import ReceiverError
from receiver.event import Incoming
from receiver.providers.contract import Account
from receiver.providers.errors import ProviderError, TryLater
from receiver.reconciliation import losses
from receiver.reconciliation.catching_up import CatchingUp, Found
from receiver.reconciliation.losses import Loss
from receiver.reconciliation.planning import State, Window, is_covered, is_due, plan
from receiver.store import Report, Store
from receiver.times import DAY, HOUR, MINUTE, SECOND

log = logging.getLogger(__name__)

#: Pages of what is long ago that one pass reads; the next one goes on.
PAGES_A_PASS = 100

#: The turn and the note of a provider's engine; see `ids.of`.
NAME = "reconciliation"
#: The note of when somebody wanted a pass of it.
_WANTED = "reconciliation wanted"
#: Seconds that a call may take with its retries and with what the provider asks to wait.
_PATIENCE = 90
#: For how long a process that says nothing keeps the turn; more than a call takes.
LEASE = (_PATIENCE + 30) * SECOND
_LONGEST_NAP = 5.0


class NotOurTurn(ReceiverError):
    """Another process does it at this moment, or has taken over: leave it to that one."""


class _Stopped(ReceiverError):
    """This process is about to end."""


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
    """Passes by itself, in a thread of one process, and one on demand: for one account.

    :param learn: stores what was learnt, in one transaction; raises `StoreUnavailable`.
    :param wall: the clock on the wall, in microseconds, if the account's is another one.
    :param retention: microseconds that everything is kept.
    :param text_mode: see `parse` of the provider.
    """

    #: Seconds between two looks at whether a pass is due.
    LOOK = 5.0
    #: Seconds that these looks may be late by the wall clock; then the process was asleep.
    ASLEEP = 60.0

    def __init__(
        self,
        account: Account,
        store: Store,
        learn: Callable[[Sequence[Incoming]], object],
        wall: Callable[[], int] | None = None,
        *,
        retention: int,
        text_mode: str = "full",
    ) -> None:
        self._store = store
        self._learn = learn
        self._now = account.now
        self._wall = wall or account.now
        self._retention = retention
        self._text_mode = text_mode
        self.account = account
        self._asking = account.within(tries=3, patience=_PATIENCE, budget=self)
        self._name = ids.of(account.provider, NAME)
        self._calls = 0
        #: That of the pass that is being made.
        self._state: State | None = None
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
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Make no other call. Safe in a signal handler."""
        self._stopped.set()

    def notice_gap(self) -> None:
        """Webhooks may have been missed: make a pass soon, unless one has just been made."""
        self._gap_at = self._now()

    def want(self) -> None:
        """Somebody wants a pass now: whichever process makes them makes one soon."""
        self._store.write_note(ids.of(self.account.provider, _WANTED), str(self._now()))

    def is_wanted(self) -> bool:
        """Whether somebody wants a pass that has not ended yet."""
        return self._is_wanted(self.state(), self._now())

    def _is_wanted(self, state: State | None, now: int) -> bool:
        wanted = int(self._store.note(ids.of(self.account.provider, _WANTED)) or 0)
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
                    "%s: reconciliation failed and goes on: %s",
                    self.account.title,
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
        if self._is_wanted(state, now):
            return state is None or not state.peace(now, self.account.history)
        gap = self._gap_at
        if gap is not None and is_covered(state, gap, now):
            self._gap_at = gap = None
        return is_due(state, now, self.account.history, gap=gap is not None)

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
            raise NotOurTurn(
                f"another process is asking {self.account.title} at this moment; try again later"
            )
        try:
            return self._pass(self.state(), wide=True, by_hand=True, since=since, progress=progress)
        finally:
            self._release()

    def state(self) -> State | None:
        """What the last pass has left; `None` if there was none yet."""
        note = self._store.note(self._name)
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
        began, history = self._now(), self.account.history
        if state is None:
            state = State.new(began, history)
        state.correct(began, history)
        if wide:
            state.widen(began, history)
        recent, *old = plan(state, began, history, self._retention, since)
        made = Pass(recent.since)
        self._calls, self._state = 0, state

        def report(found: Found) -> None:
            made.calls, made.messages, made.waiting = self._calls, found.messages, found.waiting
            made.learnt = found.learnt
            progress(made)

        reading = CatchingUp(
            self._asking,
            self._store,
            (lambda items: None) if dry else self._learn,
            retention=self._retention,
            text_mode=self._text_mode,
            failed=state.failed,
            asked=state.asked,
            by_hand=by_hand,
            progress=report,
        )
        try:
            reading.read(recent)
            reading.clear_up()
            reading.look_up()
            if not dry:
                found = bool(losses.gaps(reading.found.learnt))
                state.end(began, self._now(), history, found=found)
                self._write(state)
                self._read_old(state, began, old, reading)
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

    def _fail(self, state: State, error: ReceiverError) -> None:
        peace = error.retry_after if isinstance(error, ProviderError) else None
        wait = state.fail(self._now(), str(error), int((peace or 0) * SECOND), self.account.history)
        log.warning(
            "%s: reconciliation stopped, next try in %d s: %s",
            self.account.title,
            wait // SECOND,
            state.problem,
        )
        try:
            self._write(state)
        except ReceiverError as reason:
            log.warning("it could not be written down: %s", reason)

    def _write(self, state: State) -> None:
        self._keep()
        state.tried_at, state.calls = self._now(), self._calls
        self._store.write_note(self._name, json.dumps(dataclasses.asdict(state)))

    def _read_old(
        self, state: State, began: int, windows: Sequence[Window], reading: CatchingUp
    ) -> None:
        """Read what is long ago, or as much of it as one pass may; the next one goes on."""
        if not windows:
            return
        if state.deep_day is None:
            state.deep_at = began
        pages = 0
        for window in windows:
            state.deep_day = window.since // DAY
            if pages >= PAGES_A_PASS:
                break
            pages += reading.read(window)
            reading.clear_up()
        else:
            state.deep_day = None
        self._write(state)

    def _tell(self, made: Pass) -> None:
        for gap in made.gaps:
            log.warning(
                "%s had %s that had not arrived, from %s to %s",
                self.account.title,
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
        peace = 0.0
        if self._state is not None:
            peace = self._state.peace(self._now(), self.account.history) / SECOND
        if peace > _PATIENCE:
            raise TryLater(
                f"{self.account.title} may be asked again in {peace:.0f} s", retry_after=peace
            )
        wait = peace or self.account.budget.take()
        if not wait:
            self._calls += 1
        return min(wait, _LONGEST_NAP)

    def _claim(self, now: int) -> bool:
        if not turns.claim(self._store, self._name, now, now + LEASE):
            return False
        self._until = now + LEASE
        return True

    def _keep(self) -> None:
        if self._until is None:
            return  # a dry run
        later = self._now() + LEASE
        if not self._store.keep_turn(self._name, self._until, later):
            self._until = None
            raise NotOurTurn("another process has taken over")
        self._until = later

    def _release(self) -> None:
        until, self._until = self._until, None
        if until is not None:
            with suppress(ReceiverError):  # then it runs out by itself
                # At no time of any clock: one that goes back then holds nobody up.
                self._store.keep_turn(self._name, until, 0)
