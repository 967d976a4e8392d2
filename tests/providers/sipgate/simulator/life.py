"""A service beside a simulated sipgate, in one process: it sends, looks, and dies at any line."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from werkzeug.datastructures import MultiDict

from receiver import ids
from receiver.errors import StoreUnavailable
from receiver.event import Incoming
from receiver.providers.errors import NotFound, ProviderError, TryLater, Unavailable
from receiver.providers.sipgate import polling, sending
from receiver.providers.sipgate.api import Sipgate, answers
from receiver.providers.sipgate.events import sent_id
from receiver.providers.sipgate.simulator.reading import read_filter
from receiver.providers.sipgate.simulator.world import World
from receiver.strict_json import read_json
from receiver.times import DAY, HOUR, MINUTE, SECOND, iso
from tests.providers.sipgate.past import NOON, RETENTION, Memory, Service

NUMBERS = ("+4915799000002", "+4915799000003", "+33612345678")


class Dies(Exception):
    """The process is killed."""


class Beside(Sipgate):
    """A client whose sipgate is in the same process."""

    def __init__(self, world: World) -> None:
        super().__init__("token-ABC123", "secret")
        self.world = world
        self.calls = 0
        self.away = False

    def within(self, **bounds: Any) -> Self:
        return self

    def send(self, to: str, text: str, *, sms_id: Any = None, send_at: Any = None) -> None:
        self.calls += 1
        if self.world.loses_request():
            raise Unavailable("reset", maybe_sent=True)
        at = None if send_at is None else send_at * SECOND
        if self.world.balance is not None:
            if self.world.balance < 1:
                raise TryLater("no", status=402)
            self.world.balance -= 1
        if self.world.send("s0", to, text, at).answer_lost:
            raise Unavailable("no answer", maybe_sent=True, timed_out=True)

    def history(self, *, offset: int = 0, limit: int = 1000, **which: Any) -> answers.Page:
        if self.away:
            raise Unavailable("away", maybe_sent=False)
        told = {
            "archived": str(which["archived"]).lower(),
            "from": iso(int(which["since"].timestamp()) * SECOND),
            "offset": str(offset),
            "limit": str(min(limit, 7)),  # many pages
        }
        if which.get("until") is not None:
            told["to"] = iso(int(which["until"].timestamp()) * SECOND + SECOND)
        pairs = [*told.items(), *(("connectionIds", one) for one in which["connection_ids"])]
        wanted = read_filter(MultiDict(pairs))
        found = [sms for sms in self.world.entries() if wanted.takes(sms)]
        return answers.page(self.world.page(found, wanted.offset, wanted.limit))

    def entry(self, entry_id: str) -> Mapping[str, Any]:
        sms = self.world.find(entry_id)
        if sms is None:
            raise NotFound("no such entry")
        return self.world.view(sms)


class Life:
    """
    :param dies: the share of steps at which the process is killed.
    :param dies_unsent: also between an intent and its request.
    """

    def __init__(self, world: World, seed: int, *, dies: float, dies_unsent: bool) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.dies, self.dies_unsent = dies, dies_unsent
        self.client = Beside(world)
        self.memory = Memory()
        self.service = Service(self.client, self.memory, world.began)
        self.wanted = 0
        #: What really became of ours: the entry, or `None` if it was never sent.
        self.own: dict[str, str | None] = {}
        self.problems: list[ProviderError] = []

    def die(self) -> None:
        if self.chance.random() < self.dies:
            raise Dies

    def pass_time(self, span: int) -> None:
        self.service.now += span
        self.world.pass_time(self.service.now)

    def send(self) -> None:
        """One SMS, or some, as the gateway sends them."""
        now = self.service.now
        asked: dict[str, Any] = {"message": self.chance.choice(["Hallo", "Guten Tag", "Code"])}
        if self.chance.random() < 0.25:
            ahead = self.chance.choice([3 * MINUTE, HOUR, 2 * DAY])
            asked["scheduled_at"] = iso(now - now % SECOND + ahead)
        count = 1 if self.chance.random() < 0.7 else self.chance.randrange(2, 5)
        asked["recipients"] = [self.chance.choice(NUMBERS) for _ in range(count)]
        wanted = [w for w in sending.many(asked, now) if isinstance(w, sending.Wanted)]
        self.wanted += len(wanted)
        before, known = set(self.world.sent), set(self.own)
        calls = self.client.calls
        with suppress(Dies):
            self._send(wanted, now)
        kept = [i for i in self.written if i not in known]
        arrived = [s for s in self.world.sent if s not in before]
        assert self.client.calls - calls <= len(kept)
        # Of those that were asked for, in their order, each has its SMS or was lost on the way.
        self.own |= dict.fromkeys(kept)
        self.own |= dict(zip(self.took, arrived, strict=True))

    def _send(self, wanted: list[sending.Wanted], now: int) -> None:
        life, book = self, self.service.book
        self.written: list[str] = []
        self.took: list[str] = []

        # One that dies over several leaves some that were never sent.
        dying = life.die if len(wanted) == 1 or self.dies_unsent else lambda: None

        class Watched:
            sms_id = life.client.sms_id
            at = 0

            def within(self, **bounds: Any) -> Self:
                return self

            def send(self, *arguments: Any, **options: Any) -> None:
                if life.dies_unsent:
                    life.die()
                own_id, self.at = life.written[self.at], self.at + 1
                before = len(life.world.sent)
                try:
                    life.client.send(*arguments, **options)
                finally:
                    if len(life.world.sent) > before:
                        life.took.append(own_id)
                dying()

        class Keeping:
            def keep(self, intents: Any) -> None:
                kept = list(intents)
                book.keep(kept)
                life.written += [each.id for each in kept]

            def drop(self, own_ids: Any) -> None:
                dying()
                book.drop(own_ids)

        _, sent = sending.send(
            Watched(),  # type: ignore[arg-type]
            Keeping(),  # type: ignore[arg-type]
            wanted,
            now=now,
            text_mode="full",
        )
        self.die()
        told = sending.events(sent, now=now, retention=RETENTION, text_mode="full")
        self.memory.learn(told)

    def look(self) -> None:
        """One pass, which may be killed between any two lines."""

        def dying(function: Any) -> Any:
            def step(*arguments: Any) -> Any:
                self.die()
                return function(*arguments)

            return step

        try:
            found = self.service.look()
            memory, book = self.memory, self.service.book
            polling.keep(found, dying(memory.learn), dying(book.drop), dying(memory.write_note))
        except (Dies, StoreUnavailable):
            pass
        except ProviderError as error:
            assert self.client.away
            self.problems.append(error)

    def live(self, steps: int) -> None:
        for _ in range(steps):
            what = self.chance.random()
            if what < 0.5:
                self.send()
            elif what < 0.55:
                self.client.away = not self.client.away
            self.pass_time(int(self.chance.choice([1, 5, 40, 200, 300, 1500]) * SECOND))
            if self.chance.random() < 0.5:
                self.look()
        self.client.away, self.dies = False, 0.0
        for _ in range(3 * 24 * 2):  # whatever is scheduled goes, whoever is lost is given up
            self.pass_time(30 * MINUTE)
            self.look()

    def check(self) -> None:
        """What must be so in any world."""
        assert self.client.calls <= self.wanted
        assert len([s for s in self.world.sent.values() if s.source == "api"]) <= self.client.calls
        assert self.service.open == []
        events = self.memory.events
        assert {event.type for event in events.values()} <= {"sms.queued", "sms.sent"}
        for sms in self.world.sent.values():
            assert sms.goes_at <= self.world.now - DAY
            event = events.get(sent_id(sms.id))
            assert event is not None, sms
            self.check_event(event, sms)
        sent = Counter(e.message_id for e in events.values() if e.type == "sms.sent")
        assert set(sent.values()) <= {1}
        assert sum(sent.values()) == len(self.world.sent)

    def check_event(self, event: Incoming, sms: Any) -> None:
        own_id = ids.split(event.message_id or "")[1]
        if own_id not in self.own:
            assert own_id == sms.id
            return
        item = read_json(events_of(self.memory, own_id).body)["data"]
        assert (item["recipient"], item["message"]) == (sms.to, sms.text)


def events_of(memory: Memory, own_id: str) -> Incoming:
    (queued,) = (
        e
        for e in memory.events.values()
        if e.type == "sms.queued" and e.message_id == ids.key("sipgate", own_id)
    )
    return queued


def life(seed: int, habits: Any, weather: Any, **how: Any) -> Life:
    world = World(began=NOON, seed=seed, habits=habits, weather=weather)
    return Life(world, seed, **({"dies": 0.1, "dies_unsent": False} | how))
