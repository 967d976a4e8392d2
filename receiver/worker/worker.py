"""The worker: its loop, and the round that the loop makes again and again.

`Worker.step` is one round and knows neither threads nor sleep; the loop around it only decides
when the next round is due.
"""

from __future__ import annotations

import logging
import mmap
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress

from receiver import metrics, times
from receiver.counting import Uncounted
from receiver.errors import ReceiverError
from receiver.registry import Handler, Registry
from receiver.store import Claim, Settlement, Store, Want
from receiver.worker.begun import Begun, memory_for
from receiver.worker.calls import Call, State, Surroundings
from receiver.worker.deaths import Deaths
from receiver.worker.ends import failure_of, settlement
from receiver.worker.lane import Lane
from receiver.worker.leases import Leases
from receiver.worker.notes import LOOK_AT_HANDLERS, Handlers, Heartbeat, StuckNote, is_held
from receiver.worker.pace import Pace
from receiver.worker.threads import Executors, Threads

log = logging.getLogger(__package__)

#: How long after its handler's time-out a lease ends (CONTRACT: at most 10 s).
LEASE_SPARE = 10 * times.SECOND
#: Seconds that claimed work waits for a thread before it is given back. Well under the spare, so
#: that a call that starts at the last moment still ends within its lease.
LONGEST_WAIT_FOR_THREAD = 4.0


class Worker:
    """The handlers' side of one process.

    :param now: the wall clock, in microseconds; compared with the store's times only.
    :param executor: makes what runs the calls of a handler.
    :param clock: seconds that no wall clock can turn back, as the executors measure them, too.
    :param inside: what each handler is called inside of, as an application's context.
    :param counting: told of calls and their ends.
    """

    #: Seconds between two looks at whether other processes have committed.
    LOOK = 0.05
    #: Seconds that a round waits for the store; short, because webhooks wait for the same lock.
    PATIENCE = 0.3
    #: Seconds after `stop` until which calls may end by themselves: a host allows 30.
    DRAIN = 20.0

    def __init__(
        self,
        store: Store,
        registry: Registry,
        now: Callable[[], int] = times.now,
        executor: Executors = Threads,
        clock: Callable[[], float] = time.monotonic,
        inside: Surroundings = nullcontext,
        counting: Uncounted | None = None,
    ) -> None:
        self._inside = inside
        self._counting = counting or Uncounted()
        self._store = store
        self._now = now
        self._clock = clock
        self._registry = registry
        self._executor = executor
        self._look_at_handlers = 0
        self._ended: deque[Call] = deque()
        self._lanes: dict[str, Lane] = {}
        self._settlements: list[Settlement] = []
        self._handlers: dict[str, Handler] = {}
        self._take_in()
        self._leases = Leases(self._handlers, Begun(memory_for(self.most_calls)), clock())
        #: Nothing is claimed: what may have ended the process before is called alone.
        self._careful = False
        self._heard = threading.Event()
        #: Somebody has said that there is work, which the store's version need not show yet.
        self._woken = False
        self._version: object = None
        self._handlers_note = Handlers(store, self._lanes)
        self._stuck_note = StuckNote(store)
        self._heartbeat = Heartbeat(store)
        self._deaths = Deaths(store, registry, inside)
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._waits = True  # for a person's word, until it has been looked at
        self._patience_ends = float("inf")  # when stopping: until then what runs may end
        self._last_round = self._rest_until = self._clock()
        self._pace = Pace(store, self._clock)

    # --- from outside

    @property
    def most_calls(self) -> int:
        """How many may run at once."""
        return sum(handler.concurrency for handler in self._handlers.values())

    def succeed(self, owner: str, memory: mmap.mmap) -> None:
        """Follow a process that has ended, before the start. What it had leased is looked after.

        :param owner: the name of both.
        :param memory: where that one has written, and this one writes, which calls run.
        """
        self._leases = Leases(self._handlers, Begun(memory), self._clock(), owner)

    def start(self) -> None:
        """Run in a thread of its own. After a fork, never before one."""
        thread = threading.Thread(target=self._run_loudly, name="worker", daemon=True)
        thread.start()
        self._thread = thread

    def _run_loudly(self) -> None:
        try:
            self.run()
        except BaseException:
            log.critical("the worker has died, restart this process", exc_info=True)
            raise

    def wake(self) -> None:
        """Something may be due: look now."""
        self._woken = True
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
            self._patience_ends = min(self._patience_ends, self._clock() + patience)
            self._thread.join(patience + 2)
            return not self._thread.is_alive() and self.settled
        return True

    @property
    def alive(self) -> bool:
        """Whether the loop was started, and has made a round lately."""
        running = self._thread is not None and self._thread.is_alive()
        return running and self._clock() - self._last_round < 10

    @property
    def stuck(self) -> list[str]:
        """The handlers all of whose threads are held by calls past their time-out."""
        return [name for name, lane in self._lanes.items() if lane.stuck]

    @property
    def settled(self) -> bool:
        """Whether the store knows the end of everything that was claimed. Not during a round."""
        return not (self._settlements or self._ended or self._leases.suspects or self._unsettled())

    def run(self) -> None:
        """The loop: until `stop`, and then until what runs has ended or patience has."""
        pause = self.LOOK
        self._begin_to_count(self._handlers)
        while not self._stopping:
            pause = self._round(pause)
        self._patience_ends = min(self._patience_ends, self._clock() + self.DRAIN)
        while True:
            over = self._clock() >= self._patience_ends
            self._give_back(all_of_them=over)
            pause = self._round(pause)
            if self.settled or self._clock() >= self._patience_ends + 1:
                break
        for lane in self._lanes.values():
            lane.stop()
        self._leases.begun.clear()  # an end like this one is nobody's fault
        with suppress(ReceiverError):
            self._stuck_note.tell(self._now(), [])  # it ends with this process
            self._handlers_note.leave(self._leases.owner, self._now())
        self._deaths.wait()

    def _round(self, pause: float) -> float:
        """One step that survives whatever the step does; returns the pause before the next."""
        if pause > self.LOOK:
            time.sleep(pause)
        else:
            self._heard.wait(self.LOOK)
            time.sleep(max(0.0, self._rest_until - self._clock()))
        self._heard.clear()
        began = self._clock()
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
        self._last_round = ended = self._clock()
        self._rest_until = ended + self._pace.rest(ended - began)
        return pause

    # --- one round

    def step(self, now: int) -> None:
        """Settle what has ended, claim what is due, hand it to the threads."""
        try:
            self._step(now)
        except BaseException:
            self._leases.doubt(self._clock())
            raise

    def _take_in(self) -> list[str]:
        """A lane for each handler that was registered since the last time; returns their names."""
        if len(self._registry) == len(self._handlers):
            return []
        new = [handler for handler in self._registry if handler.name not in self._handlers]
        for handler in new:
            self._lanes[handler.name] = Lane(handler, self._executor(handler, self._end))
            self._handlers[handler.name] = handler
        self._look_at_handlers = 0
        return [handler.name for handler in new]

    def _begin_to_count(self, names: Iterable[str]) -> None:
        """What has never happened shows as 0."""
        for name in names:
            for end in metrics.ENDS:
                self._counting.count(metrics.DELIVERIES, name, end, by=0)

    def _step(self, now: int) -> None:
        self._begin_to_count(self._take_in())
        self._collect(now)
        self._time_out(now)
        for lane in self._lanes.values():
            lane.ring()
        self._give_back(all_of_them=False)
        self._settlements += self._leases.look(self._store, now, self._clock(), self._held)
        self._careful = bool(self._leases.suspects or (self._careful and self._unsettled()))
        if self._waits:
            self._waits = is_held(self._store)
        wants = [] if self._stopping or self._careful or self._waits else self._wants(now)
        if self._settlements or wants:
            claims = self._store.work(now, self._settlements, wants, self.PATIENCE, self._given_up)
            self._deaths.settled(self._settlements)
            self._count(self._settlements)
            self._settlements = []
            self._hand_out(claims, wants, now)
            self._pace.claimed(claims, wants)
        self._deaths.look()
        if not self._stopping:
            self._call_suspect(now)
        if now >= self._look_at_handlers and not self._stopping:
            self._look_at_handlers = now + LOOK_AT_HANDLERS
            self._handlers_note.look(self._leases.owner, now)
            self._store.unpark(now)
        self._stuck_note.tell(now, self.stuck)
        self._heartbeat.beat(now)

    def _given_up(self, handler: str, seqs: Sequence[int]) -> None:
        self._deaths.given_up(handler, seqs)
        if seqs:
            self._counting.count(metrics.DELIVERIES, handler, "dead", by=len(seqs))

    def _count(self, settlements: Sequence[Settlement]) -> None:
        """Their ends are written down. What was only given back is none."""
        for ended in settlements:
            if ended.state != "pending" or ended.error is not None:
                end = "failed" if ended.state == "pending" else ended.state
                self._counting.count(metrics.DELIVERIES, ended.claim.handler, end)

    def _held(self) -> list[Claim]:
        calls = [call.claim for lane in self._lanes.values() for call in lane.calls]
        return calls + [settlement.claim for settlement in self._settlements]

    def _call_suspect(self, now: int) -> None:
        """Call what may have ended the process before, if nothing else runs."""
        suspects = self._leases.suspects
        while suspects and not self._unsettled():
            lane = self._lanes[suspects[0].handler]
            claim = self._store.renew(suspects[0], now + _lease(lane.handler), self.PATIENCE)
            suspects.popleft()
            if claim is not None:
                lane.add(Call(claim, self._clock(), self._leases.begun, self._inside))
                lane.ring()

    def _collect(self, now: int) -> None:
        while self._ended:
            call = self._ended.popleft()
            lane = self._lanes[call.claim.handler]
            lane.remove(call)
            if lane.stuck and lane.overdue < lane.handler.concurrency:
                lane.stuck = False
                log.warning("handler %s is no longer stuck", lane.handler.name)
            lane.look_at = 0
            if not call.settled:
                self._counting.observe(metrics.HANDLED, call.took, lane.handler.name)
                self._settlements.append(settlement(lane.handler, call.claim, call.failure, now))

    def _time_out(self, now: int) -> None:
        clock = self._clock()
        for lane in self._lanes.values():
            timeout = lane.handler.timeout
            for call in lane.calls:
                if call.state is not State.RUNNING or clock < call.started + timeout:
                    continue
                call.change(State.RUNNING, State.OVERTAKEN)
                self._counting.observe(metrics.HANDLED, clock - call.started, lane.handler.name)
                error = TimeoutError(f"no answer within {timeout:g} s")
                self._settlements.append(
                    settlement(lane.handler, call.claim, failure_of(error), now)
                )
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
        late = self._clock() - LONGEST_WAIT_FOR_THREAD
        if self._stopping:
            self._settlements += [
                Settlement(claim, "pending", self._now(), given_back=True)
                for claim in self._leases.suspects
            ]
            self._leases.suspects.clear()
        for call in self._unsettled():
            waited = self._stopping or call.claimed < late
            unbegun = waited and call.change(State.WAITING, State.GIVEN_BACK)
            if unbegun or (all_of_them and call.change(State.RUNNING, State.OVERTAKEN)):
                self._settlements.append(
                    Settlement(call.claim, "pending", self._now(), given_back=unbegun)
                )

    def _unsettled(self) -> list[Call]:
        return [call for lane in self._lanes.values() for call in lane.calls if not call.settled]

    def _wants(self, now: int) -> list[Want]:
        woken, self._woken = self._woken, False  # what is said from now on is for the next round
        version = self._store.version()
        news, self._version = woken or version != self._version, version
        # The end of a lease may make due what is parked behind it, in the same transaction.
        settled = {settlement.claim.handler for settlement in self._settlements}
        wants = []
        for lane in self._lanes.values():
            if not (news or now >= lane.look_at):
                continue
            room = lane.room()
            if not room:
                lane.look_at = 0  # as soon as there is room
                continue
            if lane.handler.name not in settled:
                due_at = self._store.next_due(lane.handler.name, -1)
                if due_at is None or due_at > now:
                    lane.look_at = min(due_at or now + times.SECOND, now + times.SECOND)
                    continue
            handler = lane.handler
            wants.append(
                Want(handler.name, room, _lease(handler), handler.max_attempts, self._leases.owner)
            )
        return wants

    def _hand_out(self, claims: list[Claim], wants: list[Want], now: int) -> None:
        clock = self._clock()
        got = dict.fromkeys((want.handler for want in wants), 0)
        for claim in claims:
            got[claim.handler] += 1
            call = Call(claim, clock, self._leases.begun, self._inside)
            self._lanes[claim.handler].add(call)
        for want in wants:
            lane = self._lanes[want.handler]
            lane.ring()
            if got[want.handler] < want.limit:
                # All that was due is taken, or is parked; or there was too much to look at.
                later = self._store.next_due(want.handler, -1)
                lane.look_at = min(later or now + times.SECOND, now + times.SECOND)
            else:
                lane.look_at = 0

    def _end(self, call: Call) -> None:
        """Called by the executor, in any thread."""
        self._ended.append(call)
        if not self._heard.is_set():
            self._heard.set()


def _lease(handler: Handler) -> int:
    """Microseconds for which a call is its claimant's own."""
    return int(handler.timeout * times.SECOND) + LEASE_SPARE
