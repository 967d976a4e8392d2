"""When sipgate's history is asked: it reports nothing by itself.

One process at a time does so, on any number of machines: a turn in the store is its lease, and is
prolonged before each call and each group of events. What a pass has found is written down in the
order that `receiver.providers.sipgate.polling` gives; how the pass went is a note of its own.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from receiver import times, turns
from receiver.errors import ReceiverError
from receiver.event import Incoming
from receiver.forgetting import Forgotten
from receiver.providers.errors import ProviderError
from receiver.providers.sipgate import polling
from receiver.providers.sipgate.api import Sipgate
from receiver.providers.sipgate.history import number
from receiver.providers.sipgate.intents import Book
from receiver.providers.sipgate.polling import EVERY, Found, InStore
from receiver.store import Store
from receiver.times import MINUTE, SECOND
from receiver.upkeep import patiently

log = logging.getLogger(__name__)

_TURN = "polling"
NOTE = "polling"
#: How often a call is made at most, and seconds that it may take with its repetitions.
_TRIES, _PATIENCE = 3, 90
#: For how long a process that says nothing keeps the turn; more than a call takes.
LEASE = (_PATIENCE + 30) * SECOND
#: Events that are stored in one transaction: webhooks write through the same lock.
_GROUP = 64


class _KeepsNothing(ReceiverError):
    """The account has no history that could be read."""


class _NotAnyMore(ReceiverError):
    """This process is about to end, or another one has taken over: leave it to the next pass."""


@dataclass(slots=True)
class Went:
    """How the last passes went. Times are microseconds.

    :param next_at: when the next one is due.
    :param ended_at: when the last complete one ended.
    :param failures: how many in a row did not come to their end; and why the last one did not.
    :param calls: to sipgate, of the last pass.
    :param waiting: messages of ours that are looked for further.
    """

    next_at: int = 0
    tried_at: int = 0
    ended_at: int | None = None
    failures: int = 0
    problem: str | None = None
    calls: int = 0
    waiting: int = 0


class Polling:
    """Passes by itself, in a thread of one process.

    :param learn: stores what was learnt, in one transaction; raises `StoreUnavailable`.
    :param now: sipgate's clock, in microseconds.
    :param wall: the clock on the wall, if that is another one.
    :param retention: microseconds that everything is kept.
    :param text_mode: see `parse` of the provider.
    """

    #: Seconds between two looks at whether a pass is due.
    LOOK = 5.0

    def __init__(
        self,
        sipgate: Sipgate,
        store: Store,
        learn: Callable[[Sequence[Incoming]], object],
        now: Callable[[], int] = times.now,
        wall: Callable[[], int] | None = None,
        *,
        retention: int,
        text_mode: str = "full",
    ) -> None:
        self._sipgate = sipgate.within(tries=_TRIES, patience=_PATIENCE, budget=self)
        self._store = store
        self._book = Book(store)
        self._learn = learn
        self._now = now
        self._wall = wall or now
        self._retention = retention
        self._text_mode = text_mode
        self._calls = 0
        #: Until when the turn is ours.
        self._until = 0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Run in a thread of its own. After a fork, never before one."""
        threading.Thread(target=self._run, name="polling", daemon=True).start()

    def stop(self) -> None:
        """Make no other call. Safe in a signal handler."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self.LOOK):
            try:
                self.step()
            except Exception as error:
                known = isinstance(error, ReceiverError)
                log.error(
                    "polling failed and goes on: %s", error, exc_info=None if known else error
                )
                self._stopped.wait(10 * self.LOOK)

    def went(self) -> Went | None:
        """How the last passes went; `None` if there was none yet."""
        note = self._store.note(NOTE)
        if note is None:
            return None
        names = {field.name for field in dataclasses.fields(Went)}
        return Went(**{name: told for name, told in json.loads(note).items() if name in names})

    def step(self) -> Found | None:
        """Make a pass, if one is due, it is this process's turn, and its clock can be trusted.

        :returns: what it has found; `None` if there was none, or it did not come to its end.
        """
        if self._wall() < times.RELEASED:
            return None
        now = self._now()
        if not self._is_due(now) or not turns.claim(self._store, _TURN, now, now + LEASE):
            return None
        self._until = now + LEASE
        try:
            return self._pass(self.went() or Went(), now) if self._is_due(now) else None
        finally:
            with suppress(ReceiverError):  # then it runs out by itself
                # At no time of any clock: one that goes back then holds nobody up.
                self._store.keep_turn(_TURN, self._until, 0)

    def _is_due(self, now: int) -> bool:
        went = self.went()
        # A time that lies further ahead was written by a clock that was wrong.
        return went is None or not now < went.next_at <= now + 2 * EVERY

    # --- one pass

    def _pass(self, went: Went, began: int) -> Found | None:
        self._calls = 0
        try:
            found = polling.look(
                self._sipgate,
                self._book.open,
                InStore(self._store),
                polling.state(self._store.note(polling.NOTE), began),
                self._now,
                wall=self._wall,
                retention=self._retention,
                text_mode=self._text_mode,
                shown=partial(_shown, Forgotten(1, self._store.forgotten())),
            )
            polling.keep(found, self._store_all, self._drop, self._write)
            if not found.entries:
                self._see_that_it_keeps_a_history()
        except _NotAnyMore:
            return None
        except Exception as error:  # whatever sipgate tells, the next pass may go better
            self._fail(went, error)
            return None
        if went.problem is not None:
            log.info("sipgate's history was read again, with all that it told meanwhile")
        if found.given_up:
            log.warning(
                "%d SMS were not found in sipgate's history within a day of their sending, and are "
                "looked for no more",
                found.given_up,
            )
        self._end(Went(began + EVERY, ended_at=self._now(), waiting=found.waiting))
        return found

    def _see_that_it_keeps_a_history(self) -> None:
        try:
            keeps = self._sipgate.account().history_life_time
        except ProviderError:  # the token need not be allowed to ask for it
            return
        if keeps == "NONE":
            raise _KeepsNothing(
                "sipgate keeps no history of this account (historyLifeTime is NONE), so nothing is "
                "ever learnt: let it keep one, in the account's settings there"
            )

    def _fail(self, went: Went, error: Exception) -> None:
        """Write down why, and tell it once: the same problem again is no news."""
        known = isinstance(error, ReceiverError)
        problem = str(error) if known else f"{type(error).__name__}; the log says where"
        if problem != went.problem:
            log.warning(
                "what sipgate's history tells could not be learnt; it is asked again within "
                "5 minutes: %s",
                problem,
                exc_info=None if known else error,
            )
        wait = min(MINUTE << min(went.failures, 8), EVERY)
        if isinstance(error, ProviderError) and error.retry_after:
            wait = min(max(wait, int(error.retry_after * SECOND)), EVERY)
        went.failures += 1
        went.problem, went.next_at = problem, self._now() + wait
        self._end(went)

    def _end(self, went: Went) -> None:
        went.tried_at, went.calls = self._now(), self._calls
        try:
            self._keep_turn()
            self._store.write_note(NOTE, json.dumps(dataclasses.asdict(went)))
        except ReceiverError as error:  # then a pass is made too soon
            log.warning("how polling went could not be written down: %s", error)

    def _store_all(self, events: Sequence[Incoming]) -> None:
        for start in range(0, len(events), _GROUP):
            self._keep_turn()
            patiently(partial(self._learn, events[start : start + _GROUP]))

    def _drop(self, own_ids: Iterable[str]) -> None:
        self._keep_turn()
        self._book.drop(own_ids)

    def _write(self, name: str, text: str) -> None:
        self._keep_turn()
        self._store.write_note(name, text)

    # --- the turn

    def take(self) -> float:
        """The client asks before each try.

        :raises ReceiverError: if no other call is to be made.
        """
        if self._stopped.is_set():
            raise _NotAnyMore("this process is about to end")
        self._keep_turn()
        self._calls += 1
        return 0.0

    def _keep_turn(self) -> None:
        later = self._now() + LEASE
        if not self._store.keep_turn(_TURN, self._until, later):
            raise _NotAnyMore("another process has taken over")
        self._until = later


def _shown(whom: Forgotten, digits: str) -> str:
    """A number as it stands in an intent: one that was forgotten is the same as any such."""
    return number(whom.text(f"+{digits}")) if whom else digits
