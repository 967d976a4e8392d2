"""One seeded scheduler for everything that takes part: no threads, no sleeping, no real clock.

A `Simulation` is a provider that sends events, one or two processes with a worker each, and one
store. A seed decides what happens next: an event comes, a round of a worker, the end of a call, an
hour that the clock jumps, a process that dies in the middle of a store call. After every step the
promises are checked against what the simulation itself remembers.

`plants` puts bugs in on purpose; `tests/service/test_simulation.py` shows that each is found.
"""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from receiver import mirror
from receiver.errors import HandlerError, StoreUnavailable
from receiver.event import Event, Incoming
from receiver.providers.zimsend.webhook import parse
from receiver.registry import Handler, Registry
from receiver.store import (
    SILENT_ATTEMPTS,
    Claim,
    Settlement,
    open_store,
)
from receiver.store.claiming import NEVER
from receiver.times import DAY, HOUR, SECOND, iso
from receiver.worker import LEASE_SPARE, Call, Worker, backoff, ends, memory_for
from tests.outside import Outside
from tests.plants import Crash, Shop, plant

BEGAN = 20_000 * DAY + 12 * HOUR
RETENTION = 30 * DAY
STATES = ("queued", "processing", "sent", "delivered", "failed", "cancelled")
#: Rounds after which everything that is owed must have ended, once nothing goes wrong any more.
ROUNDS_TO_REST = 400


class Broken(AssertionError):
    """A promise did not hold."""


class Scheduled:
    """Runs a handler's calls when the scheduler says so: an `Executor` without threads."""

    def __init__(
        self, simulation: Simulation, handler: Handler, ended: Callable[[Call], None]
    ) -> None:
        self.handler = handler
        self._simulation = simulation
        self._ended = ended
        self._waiting: deque[Call] = deque()
        self._all: Collection[Call] = ()

    def add(self, call: Call) -> None:
        self._waiting.append(call)

    def ring(self, calls: Collection[Call], average: float | None) -> None:
        self._all = calls

    def stop(self) -> None: ...

    @property
    def next(self) -> Call | None:
        """What a thread could begin now."""
        free = sum(call.begun for call in self._all) < self.handler.concurrency
        return self._waiting[0] if self._waiting and free else None

    def begin(self) -> Call | None:
        """What a thread does with the next call, up to its end; one that hangs is returned."""
        call = self._waiting.popleft()
        if not call.begin(self._simulation.monotonic()):
            self._ended(call)
        elif self._simulation.healing or self._simulation.chance.random() > 0.1:
            self.end(call)
        else:
            return call
        return None

    def end(self, call: Call) -> None:
        call.end(self.handler, self._simulation.monotonic)
        self._ended(call)


class Process:
    """One process: a worker whose threads are the scheduler's.

    :param before: the one that has died in this one's place.
    """

    def __init__(self, simulation: Simulation, name: str, before: Process | None = None) -> None:
        self.simulation = simulation
        self.store = open_store(simulation.url)
        self.shop = Shop(simulation, self.store)
        self.handlers: list[Scheduled] = []
        self.worker = Worker(
            self.shop,  # type: ignore[arg-type]
            simulation.registry,
            simulation.wall,
            self._executor,
            simulation.monotonic,
        )
        self.name = name
        self.memory = before.memory if before else memory_for(self.worker.most_calls)
        self.worker.succeed(name, self.memory)
        #: Calls that hang: they hold their place until the scheduler lets them return.
        self.hanging: list[tuple[Scheduled, Call]] = []

    def _executor(self, handler: Handler, ended: Callable[[Call], None]) -> Scheduled:
        self.handlers.append(Scheduled(self.simulation, handler, ended))
        return self.handlers[-1]

    def calls(self) -> list[tuple[Scheduled, Call]]:
        """What a thread could begin now."""
        return [(handler, call) for handler in self.handlers if (call := handler.next)]

    def begin(self, handler: Scheduled) -> None:
        call = handler.begin()
        if call is not None:
            self.hanging.append((handler, call))


class Simulation:
    """See the module.

    :param url: a migrated database without contents that nobody else uses.
    :param plant: the name of a bug to put in.
    """

    def __init__(self, url: str, seed: int, plant: str | None = None) -> None:
        self.url = url
        self.plant = plant
        self.chance = random.Random(seed)
        self.healing = False
        self.steps: list[str] = []
        self._wall = self._latest = BEGAN
        self._monotonic = 1_000.0
        self.registry = self._handlers()
        self.processes = [Process(self, f"process {n}") for n in range(self.chance.choice((1, 2)))]
        self.outside = Outside(url)
        #: What the provider has sent, by id, and what it still tries to get answered.
        self.sent: dict[str, bytes] = {}
        self.unanswered: list[str] = []
        self.acknowledged: set[str] = set()
        #: First receipts, as stored.
        self.received: dict[str, Incoming] = {}
        self.expired: set[str] = set()
        #: The newest lease of each item, and until when it holds.
        self.fences: dict[tuple[int, str], int] = {}
        self.leases: dict[tuple[int, str], int] = {}
        #: Events that a handler has handled, and those that it refused for good or failed at.
        self.succeeded: set[tuple[str, str]] = set()
        self.failed: Counter[tuple[str, str]] = Counter()
        self._checked: object = None

    def wall(self) -> int:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def close(self) -> None:
        for process in self.processes:
            process.store.close()
        self.outside.close()

    def _handlers(self) -> Registry:
        registry = Registry()

        def handle(name: str, event: Event) -> None:
            luck = 1.0 if self.healing else self.chance.random()
            if luck < 0.2:
                self.failed[event.id, name] += 1
                raise ValueError("a defect")
            if luck < 0.25:
                self.failed[event.id, name] += 1
                raise HandlerError("later", retry_after=self.chance.randrange(1, 600))
            if luck < 0.28:
                self.failed[event.id, name] += 100
                raise HandlerError("never", permanent=True)
            self.succeeded.add((event.id, name))

        registry.on("*", name="all", timeout=5, max_attempts=4, concurrency=2)(
            lambda event: handle("all", event)
        )
        registry.on("sms.failed", "sms.delivered", name="ends", timeout=1, max_attempts=3)(
            lambda event: handle("ends", event)
        )
        return registry

    # --- what may go wrong

    def at_risk(self, call: Callable[[], Any], after: Callable[[Any], None] | None = None) -> Any:
        """A store call that may fail, or be the last thing that its process does."""
        luck = 1.0 if self.healing else self.chance.random()
        if luck < 0.01:
            raise StoreUnavailable("the store is away")
        if luck < 0.02:
            raise Crash("before the store call")
        result = call()
        if after is not None:
            after(result)
        if luck < 0.04:
            raise Crash("after the store call")
        return result

    # --- what happens

    def run(self, steps: int = 50) -> None:
        """A bad time, and then a good one in which everything must come to its end."""
        for _ in range(steps):
            self.step()
        self.healing = True
        self.steps.append("--- from here on nothing goes wrong")
        for _ in range(ROUNDS_TO_REST):
            if not self._heal():
                break
        self._check_the_end()

    def step(self) -> None:
        process = self.chance.choice(self.processes)
        happen: Callable[[Process], str] = self.chance.choices(
            [self._send, self._round, self._call, self._let_return, self._pass_time,
             self._jump, self._die, self._upkeep, self._expire],
            [6, 6, 6, 2, 4, 0.4, 0.4, 1, 0.5],
        )[0]  # fmt: skip
        try:
            self.steps.append(happen(process))
        except StoreUnavailable as error:
            self.steps.append(f"{happen.__name__}: {error}")
        except Crash as crash:
            self.steps.append(f"{happen.__name__}: {self._die(process)}, {crash}")
        self.check()

    def _send(self, process: Process) -> str:
        """A few events at the same moment: new ones, repeated ones, in any order."""
        items = []
        for _ in range(self.chance.choice((1, 1, 2, 4))):
            if self.sent and self.chance.random() < 0.3:
                event_id = self.chance.choice(self.unanswered or list(self.sent))
            else:
                event_id = self._new_event()
            body = self.sent[event_id]
            items.append(parse(body, received_at=self._wall, retention=RETENTION))
        names = [item.id for item in items]
        self.unanswered += [name for name in names if name not in self.unanswered]
        try:
            outcomes = process.shop.ingest(items, self.registry.wanting, 1)
        finally:
            self._note_what_is_stored(items)
        for item, outcome in zip(items, outcomes, strict=True):
            if outcome != "quarantined":
                self.acknowledged.add(item.id)
            if item.id in self.unanswered:
                self.unanswered.remove(item.id)
        process.worker.wake()
        return f"sent {', '.join(names)}: {', '.join(outcomes)}"

    def _new_event(self) -> str:
        event_id = f"e{len(self.sent)}"
        state = self.chance.choice(STATES)
        moment = self._wall - self.chance.randrange(2 * HOUR) // SECOND * SECOND
        data: dict[str, Any] = {"message_id": f"m{self.chance.randrange(4)}"}
        if self.chance.random() < 0.7:
            data[f"{state}_at"] = iso(moment)
        if self.chance.random() < 0.5:
            data["device_id"] = self.chance.choice(("dev_1", "dev_2"))
        envelope = {"event": f"sms.{state}", "event_id": event_id, "data": data}
        if self.chance.random() < 0.8:
            envelope["timestamp"] = iso(moment + SECOND)
        self.sent[event_id] = json.dumps(envelope).encode()
        return event_id

    def _note_what_is_stored(self, items: list[Incoming]) -> None:
        """The store's word on which of them it has: a crash may have come after the commit."""
        stored = self.stored()
        for item in items:
            if item.id in stored and item.id in self.expired:
                # Without a timestamp a replay of what was forgotten cannot be told.
                self.expired.remove(item.id)
                self.received[item.id] = item
            elif item.id in stored:
                self.received.setdefault(item.id, item)

    def _round(self, process: Process) -> str:
        process.worker.step(self._wall)
        return "a round"

    def _call(self, process: Process) -> str:
        calls = process.calls()
        if not calls:
            return "nothing to call"
        handler, call = self.chance.choice(calls)
        process.begin(handler)
        return f"called {handler.handler.name} for {call.claim.event_id}"

    def _let_return(self, process: Process) -> str:
        if not process.hanging:
            return "nothing hangs"
        handler, call = process.hanging.pop(self.chance.randrange(len(process.hanging)))
        handler.end(call)
        return f"{handler.handler.name} returned for {call.claim.event_id}"

    def _pass_time(self, process: Process) -> str:
        seconds = self.chance.choice((0.01, 1, 6, 20, 120, 4_000))
        self._wall += int(seconds * SECOND)
        self._monotonic += seconds
        return f"{seconds} s passed"

    def _jump(self, process: Process) -> str:
        hours = self.chance.choice((-1, 1))
        self._wall += hours * HOUR
        return f"the clock jumped {hours} h"

    def _die(self, process: Process) -> str:
        """kill -9, and a new process in its place. What was called may still go on."""
        process.store.close()
        self.processes[self.processes.index(process)] = Process(self, process.name, process)
        return "a process died"

    def _upkeep(self, process: Process) -> str:
        process.shop.index_texts(1)
        return "texts indexed"

    def _expire(self, process: Process) -> str:
        before = self._wall - self.chance.choice((0, HOUR, RETENTION))
        owed = {event_id for event_id, state in self._deliveries() if state == "pending"}
        if self.plant == "expiry takes what is owed":
            self.outside.execute("UPDATE deliveries SET state = 'dead' WHERE state = 'pending'")
        try:
            expired = process.shop.expire(before, 1)
        finally:
            gone = self.received.keys() - self.stored() - self.expired
            self.expired |= gone
            if gone & owed:
                raise Broken(f"expired although a handler is owed it: {gone & owed}")
        return f"expired: {tuple(expired)}"

    # --- what is remembered

    def stored(self) -> set[str]:
        return {event_id for (event_id,) in self.outside.execute("SELECT id FROM events")}

    def states(self) -> dict[tuple[int, str], str]:
        return {
            (seq, handler): state
            for seq, handler, state in self.outside.execute(
                "SELECT event_seq, handler, state FROM deliveries"
            )
        }

    def _deliveries(self) -> list[tuple[str, str]]:
        return self.outside.execute(
            "SELECT e.id, d.state FROM deliveries AS d JOIN events AS e ON e.seq = d.event_seq"
        )

    def worked(
        self,
        now: int,
        before: dict[tuple[int, str], str],
        settlements: list[Settlement],
        claims: list[Claim],
    ) -> None:
        """After each transaction of a worker: who has ended what, and who has leased what."""
        after = self.states()
        ends = {(s.claim.event_seq, s.claim.handler, s.claim.fence) for s in settlements}
        for item, state in after.items():
            if state in ("done", "dead") and before.get(item) == "pending":
                self._require(
                    (*item, self.fences[item]) in ends or self._is_given_up(*item),
                    f"{item} was ended by one who is not its last claimant",
                )
        for settlement in settlements:
            item = settlement.claim.event_seq, settlement.claim.handler
            if settlement.claim.fence == self.fences.get(item):
                self.leases.pop(item, None)
        for claim in claims:
            item = claim.event_seq, claim.handler
            self._require(
                now >= self.leases.get(item, now), f"{item} was leased while its lease held"
            )
            handler = self.registry.get(claim.handler)
            assert handler is not None
            self.fences[item] = claim.fence
            self.leases[item] = now + int(handler.timeout * SECOND) + LEASE_SPARE
            self._check_one_at_a_time(now, claim)

    def renewed(self, claim: Claim, until: int, renewed: Claim | None) -> None:
        """After each transaction that has renewed a lease, or has found that it holds no more."""
        item = claim.event_seq, claim.handler
        self._require(
            (renewed is not None) == (self.fences[item] == claim.fence and item in self.leases),
            f"the lease of {item} was renewed by one who is not its last claimant",
        )
        if renewed is not None:
            self.fences[item] = renewed.fence
            self.leases[item] = until

    def _is_given_up(self, seq: int, name: str) -> bool:
        """Whether it was leased as often as it may be, without a word."""
        ((state, attempts),) = self.outside.execute(
            "SELECT state, attempts FROM deliveries WHERE event_seq = ? AND handler = ?",
            (seq, name),
        )
        handler = self.registry.get(name)
        assert handler is not None
        return bool(state == "dead" and attempts >= handler.max_attempts + SILENT_ATTEMPTS)

    def _check_one_at_a_time(self, now: int, claim: Claim) -> None:
        # Only at the claim: a lease that has run out may hold again when the clock goes back.
        ((others,),) = self.outside.execute(
            "SELECT count(*) FROM deliveries WHERE message_id = ? AND handler = ?"
            " AND event_seq <> ? AND state = 'pending' AND leased AND due_at > ?",
            (claim.message_id, claim.handler, claim.event_seq, now),
        )
        self._require(not others, f"two events of one message at once: {claim.event_id}")

    # --- what must hold

    @staticmethod
    def _require(holds: bool, promise: str) -> None:
        if not holds:
            raise Broken(promise)

    def check(self) -> None:
        """The promises, after every step that has changed anything."""
        self._latest = max(self._latest, self._wall)
        version = self.outside.version()
        if version == self._checked:
            return
        self._checked = version
        events = self.outside.execute("SELECT id, type, repeat FROM events")
        ids = [event_id.partition(" ")[0] for event_id, *_ in events]
        lost = self.acknowledged - set(ids) - self.expired
        self._require(not lost, f"acknowledged, and not stored: {lost}")
        self._require(len(ids) == len(set(ids)), "one id, two events")
        self._check_deliveries(events)
        self._check_parked()
        self._check_mirror()

    def _check_deliveries(self, events: list[tuple[str, str, int]]) -> None:
        rows = self.outside.execute(
            "SELECT e.id, d.handler, d.state FROM deliveries AS d"
            " JOIN events AS e ON e.seq = d.event_seq"
        )
        present = {(event_id, handler) for event_id, handler, _ in rows}
        for event_id, event_type, repeat in events:
            if not repeat:
                missing = {
                    (event_id, handler) for handler in self.registry.wanting(event_type)
                } - present
                self._require(not missing, f"stored without its work: {missing}")
        for event_id, handler, state in rows:
            item = event_id, handler
            if state == "done":
                self._require(item in self.succeeded, f"done, and never handled: {item}")

    def _check_parked(self) -> None:
        """Where something is parked, something else of its message is leased or has been due."""
        left = self.outside.execute(
            "SELECT event_seq, handler FROM deliveries AS p WHERE state = 'pending' AND due_at = ?"
            " AND NOT EXISTS (SELECT 1 FROM deliveries AS o WHERE o.message_id = p.message_id"
            " AND o.handler = p.handler AND o.state = 'pending' AND (o.leased OR o.due_at <= ?))",
            (NEVER, self._latest),
        )
        self._require(not left, f"parked, and nothing will un-park it: {left}")

    def _check_mirror(self) -> None:
        """Each message is the join of what came in about it, and counts where it should."""
        rows: dict[str, dict[str, Any]] = {}
        first: dict[str, int] = {}
        for event_id, item in self.received.items():
            if event_id not in self.expired and item.says is not None and item.message_id:
                row = rows.setdefault(item.message_id, {})
                for name, register in item.says.items():
                    stamp = register[0], register[1]
                    if name not in row or stamp > (row[name][0], row[name][1]):
                        row[name] = register
                first[item.message_id] = min(
                    first.get(item.message_id, item.received_at), item.received_at
                )
        stored = {
            name: json.loads(registers)
            for name, registers in self.outside.execute("SELECT id, registers FROM messages")
        }
        self._require(stored == rows, f"the mirror is not the join: {stored} instead of {rows}")
        cells = Counter(mirror.summarize(row, first[name]).cell for name, row in rows.items())
        counted = {
            mirror.Cell(*cell): live
            for *cell, live in self.outside.execute(
                "SELECT day, provider, device_id, status, code, sum(live)"
                f" FROM {'statistics' if self.outside.is_sqlite else 'counted'}"
                " GROUP BY day, provider, device_id, status, code HAVING sum(live) <> 0"
            )
        }
        self._require(counted == cells, f"statistics differ from a recount: {counted}, {cells}")

    # --- the end

    def _heal(self) -> bool:
        """Everybody works, time passes; returns whether anything is left to do."""
        for event_id in list(self.unanswered):
            item = parse(self.sent[event_id], received_at=self._wall, retention=RETENTION)
            outcomes = self.processes[0].shop.ingest([item], self.registry.wanting, 1)
            self._note_what_is_stored([item])
            self.unanswered.remove(event_id)
            if outcomes != ["quarantined"]:
                self.acknowledged.add(event_id)
        for process in self.processes:
            while process.hanging:
                handler, call = process.hanging.pop()
                handler.end(call)
            # Threads begin at once what is claimed, so that none of it is given back.
            process.worker.step(self._wall)
            while process.calls():
                while calls := process.calls():
                    process.begin(calls[0][0])
                process.worker.step(self._wall)
        pending = "FROM deliveries WHERE state = 'pending'"
        ((next_due,),) = self.outside.execute(
            f"SELECT min(due_at) {pending} AND due_at > ? AND due_at < ?", (self._wall, NEVER)
        )
        seconds = max(30, ((next_due or 0) - self._wall) // SECOND + 1)
        self._wall += seconds * SECOND
        self._monotonic += seconds
        return bool(self.outside.execute(f"SELECT 1 {pending} LIMIT 1"))

    def _check_the_end(self) -> None:
        self.check()
        pending = [item for item, state in self.states().items() if state == "pending"]
        self._require(not pending, f"work that never ends: {pending}")


@contextmanager
def under_control(simulation: Simulation) -> Iterator[None]:
    """What the worker draws by chance is the simulation's, too; and the bugs are in."""
    with pytest.MonkeyPatch.context() as patched:
        draw = simulation.chance.random
        patched.setattr(ends, "backoff", lambda failures: backoff(failures, draw))
        plant(patched, simulation.plant)
        yield


def simulate(url: str, seed: int, bug: str | None = None) -> None:
    """Run one seed; a promise that breaks tells the steps that led there."""
    simulation = Simulation(url, seed, bug)
    try:
        with under_control(simulation):
            _run(simulation, seed)
    finally:
        simulation.close()


def _run(simulation: Simulation, seed: int) -> None:
    try:
        simulation.run()
    except Exception as error:
        tail = "\n  ".join(simulation.steps[-40:])
        again = f"SEED={seed} python -m pytest tests/service/test_simulation.py"
        raise Broken(f"seed {seed}: {error}\nalone: {again}\n  {tail}") from error
