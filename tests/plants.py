"""Bugs that the simulation puts in on purpose: most around the store, as one process sees it,
and a few in the project's own code."""

from __future__ import annotations

from typing import Any

import pytest

from receiver import status
from receiver.event import Incoming
from receiver.store import Claim, Settlement, Store, Want
from receiver.store.group import decide
from receiver.store.postgres import group as postgres_group
from receiver.store.postgres import work as postgres_work
from receiver.store.sqlite import group as sqlite_group
from receiver.store.sqlite import work as sqlite_work
from tests.outside import Outside


class Crash(BaseException):
    """The process dies here."""


class Shop:
    """A store as one process sees it: any call may be the last thing that the process does.

    It is also where most bugs are planted: the project's own code stays as it is.
    """

    def __init__(self, simulation: Any, store: Store) -> None:
        self._simulation = simulation
        self._store = store
        self.seen: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        if name in ("close", "migrate"):
            return call

        def guarded(*arguments: Any) -> Any:
            return self._simulation.at_risk(lambda: call(*arguments))

        return guarded

    def renew(self, claim: Claim, until: int, patience: float) -> Claim | None:
        renewed: Claim | None = self._simulation.at_risk(
            lambda: self._store.renew(claim, until, patience),
            after=lambda renewed: self._simulation.renewed(claim, until, renewed),
        )
        return renewed

    def version(self) -> object:
        version = self._simulation.at_risk(self._store.version)
        if isinstance(version, tuple):  # PostgreSQL's: the commits of the process, and the second
            return version[0], int(self._simulation.monotonic())
        return version

    def ingest(self, items: list[Incoming], wanting: Any, patience: float) -> list[str]:
        plant = self._simulation.plant
        if plant == "acknowledge before commit":
            self._simulation.acknowledged.update(item.id for item in items)
        if plant == "dedupe by lookup":  # in memory: what others have stored meanwhile is not seen
            stored = self._simulation.stored()
            unseen = [item.id in stored and item.id not in self.seen for item in items]
            self.seen.update(item.id for item in items)
            items = [
                item._replace(id=f"{item.id} again") if again else item
                for item, again in zip(items, unseen, strict=True)
            ]
        if plant == "work apart from the event":
            outcomes = self._guarded_ingest(items, lambda _: (), patience)
            self._simulation.at_risk(lambda: None)
            self._add_work(self._simulation.outside, items, wanting)
            return outcomes
        return self._guarded_ingest(items, wanting, patience)

    def _guarded_ingest(self, items: Any, wanting: Any, patience: float) -> list[str]:
        ingest = self._store.ingest
        return self._simulation.at_risk(lambda: list(ingest(items, wanting, patience)))

    @staticmethod
    def _add_work(outside: Outside, items: list[Incoming], wanting: Any) -> None:
        for item in items:
            for handler in wanting(item.type):
                outside.execute(
                    "INSERT INTO deliveries (event_seq, handler, message_id, occurred_at, due_at)"
                    " SELECT seq, ?, message_id, occurred_at, received_at FROM events WHERE id = ?"
                    " ON CONFLICT DO NOTHING",
                    (handler, item.id),
                )

    def work(
        self, now: int, settlements: list[Settlement], wants: list[Want], *more: Any
    ) -> list[Claim]:
        plant = self._simulation.plant
        real = settlements
        if plant == "forget the lease":
            wants = [want._replace(lease=0) for want in wants]
        if plant == "a failure is an end":
            settlements = [s._replace(state="done") for s in settlements]
        if plant == "finish without the fence":
            fences = self._simulation.fences
            settlements = [
                s._replace(claim=s.claim._replace(fence=fences[s.claim.event_seq, s.claim.handler]))
                for s in settlements
            ]
        before = self._simulation.states()
        claims = self._simulation.at_risk(
            lambda: self._store.work(now, settlements, wants, *more),
            after=lambda claims: self._simulation.worked(now, before, real, claims),
        )
        if plant == "done before it ran" and claims:
            self._store.work(now, [Settlement(claim, "done", now) for claim in claims], [], 1)
        return claims


def plant(patched: pytest.MonkeyPatch, bug: str | None) -> None:
    """The bugs that are not the store's wrapper's."""
    if bug == "last write wins":
        patched.setattr(status, "merge", lambda one, other: {**one, **other})
    elif bug == "count twice after a change":

        def forgetful(*arguments: Any) -> Any:
            decision = decide(*arguments)
            for message in decision.messages.values():
                message.before = None
            return decision

        patched.setattr(sqlite_group, "decide", forgetful)
        patched.setattr(postgres_group, "decide", forgetful)
    elif bug == "two of one message at once":
        met = sqlite_work._MET.replace(sqlite_work._HELD, "false")
        patched.setattr(sqlite_work, "_MET", met)
        for name in ("_MET", "_LEASE"):
            query = getattr(postgres_work, name).replace(postgres_work._HELD, "false")
            patched.setattr(postgres_work, name, query)
    elif bug == "a parked item is never un-parked":
        for engine in (sqlite_work, postgres_work):
            patched.setattr(engine, "_UNPARK", f"{engine._UNPARK} AND false")


PLANTS = (
    "acknowledge before commit",
    "forget the lease",
    "dedupe by lookup",
    "last write wins",
    "count twice after a change",
    "finish without the fence",
    "done before it ran",
    "a failure is an end",
    "work apart from the event",
    "expiry takes what is owed",
    "two of one message at once",
    "a parked item is never un-parked",
)
#: Those that are planted into an engine's own code.
OF_AN_ENGINE = (
    "count twice after a change",
    "two of one message at once",
    "a parked item is never un-parked",
)
