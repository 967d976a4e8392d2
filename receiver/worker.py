"""Runs the handlers: claim under a lease, call outside any transaction, write the end.

`Worker.step` is one round and knows no threads of its own making but those that run handlers;
the loop around it only decides when the next round is due.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import threading
import time
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from queue import SimpleQueue

from receiver import times
from receiver.errors import HandlerError, ReceiverError
from receiver.event import Event
from receiver.registry import Handler, Registry
from receiver.store import Claim, Settlement, Store, Want

log = logging.getLogger(__name__)

#: How long after its handler's time-out a lease ends (CONTRACT: at most 10 s).
LEASE_SPARE = 10 * times.SECOND
#: Seconds that claimed work waits for a thread before it is given back. Well under the spare, so
#: that a call that starts at the last moment still ends within its lease.
LONGEST_WAIT_FOR_THREAD = 4.0
#: Backoff before the second attempt, and the most there is between two.
FIRST_BACKOFF = 5 * times.SECOND
LONGEST_BACKOFF = times.HOUR
#: How long work for a handler that is not registered waits before it is dead.
UNKNOWN_HANDLER_WAIT = 7 * times.DAY
#: The note of when each handler was last registered somewhere.
_HANDLERS = "handlers"
#: The note of which handlers are stuck in which process, and how often it is written again.
_STUCK = "stuck"
_SAID_AGAIN = 20 * times.SECOND
_LONGEST_ERROR = 500


def backoff(failures: int, draw: Callable[[], float] = random.random) -> int:
    """Microseconds until the next attempt: exponential, with full jitter.

    :param failures: attempts that have failed, from 1 on.
    :param draw: a random number in [0, 1).
    """
    ceiling = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(failures - 1, 32))
    return int(ceiling * draw())


#: By process: when it has said so, and its handlers that are stuck.
_Stuck = dict[str, tuple[int, list[str]]]


def stuck_handlers(store: Store, now: int) -> list[str]:
    """The handlers that are stuck in any process, as these have noted it."""
    return sorted({name for _, names in _stuck_anywhere(store, now).values() for name in names})


def _stuck_anywhere(store: Store, now: int) -> _Stuck:
    """Without the processes that have not said so again for a while."""
    noted: _Stuck = json.loads(store.note(_STUCK) or "{}")
    return {who: said for who, said in noted.items() if abs(now - said[0]) < 3 * _SAID_AGAIN}


class _Call:
    """One claimed item on its way through a thread."""

    __slots__ = ("claim", "claimed", "failure", "settled", "started", "taken", "took")

    def __init__(self, claim: Claim, claimed: float) -> None:
        self.claim = claim
        self.claimed = claimed
        #: Acquired once, by the thread that begins the call or by the loop that gives it back.
        self.taken = threading.Lock()
        self.started: float | None = None
        self.took = 0.0  # seconds, once it has ended
        #: Its end is decided (given back, or timed out): what the thread brings no longer counts.
        self.settled = False
        self.failure: BaseException | None = None


class _Lane:
    """The threads of one handler, so that no handler can take those of another."""

    #: Claimed ahead for each thread at most, and for how many seconds of work at most.
    DEEPEST = 64
    AHEAD = 0.1
    #: Seconds of work that are worth waking one more thread for.
    WORTH_A_THREAD = 0.005

    def __init__(self, handler: Handler, finished: Callable[[_Lane, _Call], None]) -> None:
        self.handler = handler
        self.calls: set[_Call] = (
            set()
        )  # claimed and not finished; only the worker's loop changes it
        self.stuck = False
        self.look_at = 0  # when to ask the store for work again, unless something is heard before
        self._average: float | None = None  # seconds that a call takes, lately
        self._finished = finished
        self._waiting: deque[_Call] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._threads = 0

    @property
    def overdue(self) -> int:
        """Threads that a call past its time-out still holds."""
        return sum(1 for call in self.calls if call.settled and call.started is not None)

    def room(self) -> int:
        """How many more items to claim: ahead of time if the calls are quick."""
        threads = self.handler.concurrency - self.overdue
        depth = 1
        if self._average is not None:
            depth = max(1, min(self.DEEPEST, int(self.AHEAD / max(self._average, 1e-6))))
        return max(0, threads * depth - (len(self.calls) - self.overdue))

    def measure(self, took: float) -> None:
        self._average = took if self._average is None else 0.9 * self._average + 0.1 * took

    def add(self, call: _Call) -> None:
        self.calls.add(call)
        self._waiting.append(call)

    def ring(self) -> None:
        """Wake as many threads as what waits is worth: a thread takes one call after the other."""
        waiting = len(self._waiting)
        if not waiting:
            return
        wanted = waiting
        if self._average is not None:
            wanted = min(waiting, 1 + int(waiting * self._average / self.WORTH_A_THREAD))
        # What has rung and was not heard yet will be: no bell is needed twice.
        for _ in range(min(wanted, self.handler.concurrency) - self._bell.qsize()):
            self._bell.put(None)
        # Threads that are in a call may hang there, so they count as missing.
        busy = sum(1 for call in self.calls if call.started is not None)
        while self._threads < min(self.handler.concurrency, busy + wanted):
            # A daemon: a call that hangs must not keep the process from its exit.
            threading.Thread(
                target=self._work, name=f"handler {self.handler.name}", daemon=True
            ).start()
            self._threads += 1

    def _work(self) -> None:
        while True:
            self._bell.get()
            while self._waiting:
                try:
                    call = self._waiting.popleft()
                except IndexError:  # another thread was quicker
                    break
                if call.taken.acquire(blocking=False):
                    call.started = time.monotonic()
                    try:
                        _run(self.handler, event_of(call.claim))
                    except BaseException as error:  # also SystemExit: it ends no thread of ours
                        call.failure = error
                    call.took = time.monotonic() - call.started
                self._finished(self, call)


#: What a call returns that has not run yet.
_NOT_RUN = (Awaitable, Generator, AsyncGenerator)


def _run(handler: Handler, event: Event) -> None:
    returned = handler.function(event)
    if isinstance(returned, _NOT_RUN):  # a wrapper hid what the registry refuses
        if isinstance(returned, Coroutine):
            returned.close()  # or Python warns of it
        raise HandlerError(f"its call returned a {type(returned).__name__}, which nobody runs")


class Worker:
    """The handlers' side of one process.

    :param now: the wall clock, in microseconds; compared with the store's times only.
    """

    #: Seconds between two looks at whether other processes have committed.
    LOOK = 0.05
    #: Seconds between two rounds at least, so that under load one commit serves many calls.
    PACE = 0.02
    #: And so many times what the last round took, up to `LONGEST_PACE` seconds: where requests
    #: keep the processor or the store busy, they go first.
    YIELD = 4
    LONGEST_PACE = 0.1
    #: Seconds that a round waits for the store; short, because webhooks wait for the same lock.
    PATIENCE = 0.3
    #: Seconds after `stop` until which calls may end by themselves: a host allows 30.
    DRAIN = 20.0

    def __init__(
        self, store: Store, registry: Registry, now: Callable[[], int] = times.now
    ) -> None:
        self._store = store
        self._now = now
        self._finished: deque[tuple[_Lane, _Call]] = deque()
        self._lanes = {h.name: _Lane(h, self._finish) for h in registry}
        self._settlements: list[Settlement] = []
        self._heard = threading.Event()
        self._version: object = None
        self._bury_at = 0
        self._name = secrets.token_hex(8)
        self._told_stuck: list[str] = []
        self._tell_stuck_at = 0
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._patience_ends = float("inf")  # when stopping: until then what runs may end
        self._last_round = self._rest_until = time.monotonic()

    # --- from outside

    def start(self) -> None:
        """Run in a thread of its own. After a fork, never before one."""
        self._thread = threading.Thread(target=self._run_loudly, name="worker", daemon=True)
        self._thread.start()

    def _run_loudly(self) -> None:
        try:
            self.run()
        except BaseException:
            log.critical("the worker has died, restart this process", exc_info=True)
            raise

    def wake(self) -> None:
        """Something may be due: look now."""
        self._heard.set()

    def stop(self) -> None:
        """Claim nothing more. Safe in a signal handler: it only sets a flag."""
        self._stopping = True

    def drain(self, patience: float) -> bool:
        """Stop, let what runs come to its end, and give back the rest.

        :param patience: seconds to wait for calls that run.
        :returns: whether everything is settled in the store.
        """
        self.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._patience_ends = min(self._patience_ends, time.monotonic() + patience)
            self._thread.join(patience + 2)
            ended = not self._thread.is_alive()
            return ended and not (self._settlements or self._finished or self._unsettled())
        return True

    @property
    def alive(self) -> bool:
        """Whether the loop was started, and has made a round lately."""
        running = self._thread is not None and self._thread.is_alive()
        return running and time.monotonic() - self._last_round < 10

    @property
    def stuck(self) -> list[str]:
        """The handlers all of whose threads are held by calls past their time-out."""
        return [name for name, lane in self._lanes.items() if lane.stuck]

    def run(self) -> None:
        """The loop: until `stop`, and then until what runs has ended or patience has."""
        pause = self.LOOK
        while not self._stopping:
            pause = self._round(pause)
        self._patience_ends = min(self._patience_ends, time.monotonic() + self.DRAIN)
        while True:
            over = time.monotonic() >= self._patience_ends
            self._give_back(all_of_them=over)
            pause = self._round(pause)
            if not self._settlements and not self._finished and not self._unsettled():
                break
            if time.monotonic() >= self._patience_ends + 1:
                break
        with suppress(ReceiverError):
            self._tell_stuck(self._now(), [])  # it ends with this process

    def _round(self, pause: float) -> float:
        """One step that survives whatever the step does; returns the pause before the next."""
        if pause > self.LOOK:
            time.sleep(pause)
        else:
            self._heard.wait(self.LOOK)
            time.sleep(max(0.0, self._rest_until - time.monotonic()))
        self._heard.clear()
        began = time.monotonic()
        try:
            self.step(self._now())
        except Exception as error:
            pause = min(max(pause, self.LOOK) * 2, 2.0)
            known = isinstance(error, ReceiverError)
            log.error(
                "the worker cannot use the store, next try in %.1f s: %s",
                pause,
                error,
                exc_info=None if known else error,
            )
            self._version = None  # whatever was missed meanwhile: look again
        else:
            pause = self.LOOK
        self._last_round = ended = time.monotonic()
        rest = min(self.LONGEST_PACE, self.YIELD * (ended - began))
        self._rest_until = ended + max(self.PACE, rest)
        return pause

    # --- one round

    def step(self, now: int) -> None:
        """Settle what has ended, claim what is due, hand it to the threads."""
        self._collect(now)
        self._time_out(now)
        for lane in self._lanes.values():
            lane.ring()
        self._give_back(all_of_them=False)
        wants = [] if self._stopping else self._wants(now)
        if self._settlements or wants:
            claims = self._store.work(now, self._settlements, wants, self.PATIENCE)
            self._settlements = []
            self._hand_out(claims, wants, now)
        if now >= self._bury_at and not self._stopping:
            self._bury_at = now + times.MINUTE
            self._bury(now)
        self._tell_stuck(now, self.stuck)

    def _tell_stuck(self, now: int, stuck: list[str]) -> None:
        """Let the other processes know: `/readyz` is asked of one of them."""
        if stuck == self._told_stuck and (not stuck or now < self._tell_stuck_at):
            return
        noted = _stuck_anywhere(self._store, now) | {self._name: (now, stuck)}
        self._store.write_note(
            _STUCK, json.dumps({w: said for w, said in noted.items() if said[1]})
        )
        self._told_stuck, self._tell_stuck_at = stuck, now + _SAID_AGAIN

    def _bury(self, now: int) -> None:
        """End the work of handlers that no process has had for long. Each notes which it has."""
        noted: dict[str, int] = json.loads(self._store.note(_HANDLERS) or "{}")
        noted = {name: at for name, at in noted.items() if at > now - UNKNOWN_HANDLER_WAIT}
        if any(noted.get(name, 0) < now - times.HOUR for name in self._lanes):
            noted |= dict.fromkeys(self._lanes, now)
            self._store.write_note(_HANDLERS, json.dumps(noted))
        buried = self._store.bury(now, list(noted), UNKNOWN_HANDLER_WAIT)
        if buried:
            log.error("%d work items are dead: their handlers are not registered", buried)

    def _collect(self, now: int) -> None:
        while self._finished:
            lane, call = self._finished.popleft()
            lane.calls.remove(call)
            if call.started is not None:
                lane.measure(call.took)
            if lane.stuck and lane.overdue < lane.handler.concurrency:
                lane.stuck = False
                log.warning("handler %s is no longer stuck", lane.handler.name)
            lane.look_at = 0
            if not call.settled:
                self._settlements.append(self._settle(lane.handler, call, now))

    def _settle(self, handler: Handler, call: _Call, now: int) -> Settlement:
        """The end of a call: done, to be tried again, or dead."""
        error, claim = call.failure, call.claim
        if error is None:
            return Settlement(claim, "done", now)
        permanent, wait = _wishes(error)
        dead = permanent or claim.attempt >= handler.max_attempts
        if wait is None:
            wait = backoff(claim.attempt)
        # Neither the exception's text nor its arguments: they may hold what an SMS says.
        log.log(
            logging.ERROR if dead else logging.WARNING,
            "handler %s failed at event %s, attempt %d: %s%s; %s (`flask events show` tells more)",
            handler.name,
            claim.event_id,
            claim.attempt,
            type(error).__name__,
            _place(error),
            "it is dead" if dead else f"next attempt in {wait / times.SECOND:.0f} s",
        )
        return Settlement(
            claim,
            "dead" if dead else "pending",
            now if dead else now + wait,
            error=_text(error),
        )

    def _time_out(self, now: int) -> None:
        clock = time.monotonic()
        for lane in self._lanes.values():
            timeout = lane.handler.timeout
            for call in lane.calls:
                if call.settled or call.started is None or clock < call.started + timeout:
                    continue
                call.settled = True
                call.failure = TimeoutError(f"no answer within {timeout:g} s")
                self._settlements.append(self._settle(lane.handler, call, now))
            if not lane.stuck and lane.overdue >= lane.handler.concurrency:
                lane.stuck = True
                log.error(
                    "handler %s is stuck: all its %d threads are in calls past their time-out of "
                    "%g s. Restart the process, and give the handler's calls time-outs of their "
                    "own",
                    lane.handler.name,
                    lane.handler.concurrency,
                    timeout,
                )

    def _give_back(self, *, all_of_them: bool) -> None:
        """Return claimed work that no thread has begun in time; when stopping, at once."""
        late = time.monotonic() - LONGEST_WAIT_FOR_THREAD
        for call in self._unsettled():
            waited = self._stopping or call.claimed < late
            unbegun = waited and call.taken.acquire(blocking=False)
            if unbegun or all_of_them:
                call.settled = True
                self._settlements.append(
                    Settlement(call.claim, "pending", self._now(), given_back=unbegun)
                )

    def _unsettled(self) -> list[_Call]:
        return [call for lane in self._lanes.values() for call in lane.calls if not call.settled]

    def _wants(self, now: int) -> list[Want]:
        version = self._store.version()
        news, self._version = version != self._version, version
        wants = []
        for lane in self._lanes.values():
            if not (news or now >= lane.look_at):
                continue
            room = lane.room()
            if not room:
                lane.look_at = 0  # as soon as there is room
                continue
            due_at = self._store.next_due(lane.handler.name, 0)
            if due_at is None or due_at > now:
                lane.look_at = min(due_at or now + times.SECOND, now + times.SECOND)
                continue
            lease = int(lane.handler.timeout * times.SECOND) + LEASE_SPARE
            wants.append(Want(lane.handler.name, room, lease, lane.handler.max_attempts))
        return wants

    def _hand_out(self, claims: list[Claim], wants: list[Want], now: int) -> None:
        clock = time.monotonic()
        got = dict.fromkeys((want.handler for want in wants), 0)
        for claim in claims:
            got[claim.handler] += 1
            self._lanes[claim.handler].add(_Call(claim, clock))
        for want in wants:
            lane = self._lanes[want.handler]
            lane.ring()
            if got[want.handler] < want.limit:
                # All that was due is taken, or waits for an item of the same message.
                later = self._store.next_due(want.handler, now)
                lane.look_at = min(later or now + times.SECOND, now + times.SECOND)
            else:
                lane.look_at = 0

    def _finish(self, lane: _Lane, call: _Call) -> None:
        """Called by a handler's thread."""
        self._finished.append((lane, call))
        if not self._heard.is_set():
            self._heard.set()


def event_of(claim: Claim) -> Event:
    """The event as a handler sees it."""
    return Event(
        id=claim.event_id,
        type=claim.event_type,
        occurred_at=times.to_datetime(claim.occurred_at),
        received_at=times.to_datetime(claim.received_at),
        message_id=claim.message_id,
        source=claim.source,
        late=bool(claim.late),
        redacted=bool(claim.redacted),
        raw=claim.body,
        attempt=claim.attempt,
    )


def _wishes(error: BaseException) -> tuple[bool, int | None]:
    """Whether the failure is permanent, and after how many microseconds to try again.

    Never raises: it may be a subclass that did not call its base, or was changed since.
    """
    if not isinstance(error, HandlerError):
        return False, None
    permanent = False
    try:
        permanent = error.permanent is True
        wait = int(error.retry_after * times.SECOND) if error.retry_after is not None else -1
    except Exception:
        return permanent, None
    return permanent, wait if 0 <= wait <= error.LONGEST_RETRY_AFTER * times.SECOND else None


def _text(error: BaseException) -> str:
    """What is stored of a failure. Never raises, whatever the exception makes of `str()`."""
    name = type(error).__name__
    try:
        text = f"{name}: {error}"
    except Exception:
        text = name
    return text[:_LONGEST_ERROR].encode("utf-8", "replace").decode()


def _place(error: BaseException) -> str:
    """` at file:line` of the innermost frame, for an error that says no more in the log."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
