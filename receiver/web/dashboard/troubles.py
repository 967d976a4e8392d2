"""What can be wrong, as far as the store and this process know, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from receiver.calling import call
from receiver.parts import Receiver
from receiver.readiness import OLDEST, SILENT
from receiver.refusals import last_noted
from receiver.web.dashboard.pages import language
from receiver.worker import is_held, last_heartbeat, stuck_handlers


@dataclass(frozen=True)
class Trouble:
    """One of them. The catalogues have `trouble.NAME` and `trouble.NAME.told`.

    :param told: the values of the second; with `n` it has two forms.
    :param commands: what to type.
    :param page: where there is more about it.
    """

    name: str
    told: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["bad", "warn"] = "bad"
    commands: Sequence[str] = ()
    page: str | None = None


def troubles_of(receiver: Receiver) -> Iterator[Trouble]:
    """The worst first."""
    store, now, spoken = receiver.store, receiver.now(), language()
    names = [handler.name for handler in receiver.registry]
    if is_held(store):
        yield Trouble("held", kind="warn", commands=[call("restore --run-work")])
    beat = last_heartbeat(store)
    if (beat is None or now - beat > SILENT) and names:
        if receiver.config.embedded_worker:
            yield Trouble("worker_gone")
        else:
            yield Trouble("worker_away", commands=[call("work")])
    if stuck := stuck_handlers(store, now):
        yield Trouble("stuck", {"handlers": ", ".join(stuck)})
    oldest = min(store.oldest_due(now).values(), default=now)
    if now - oldest > OLDEST:
        yield Trouble("backlog", {"span": spoken.span(now - oldest)}, page="events")
    if dead := sum(group.number for group in store.groups()):
        yield Trouble("dead", {"n": dead}, page="failures")
    troubles = store.troubles(now, names)
    if again := sum(again for _, _, again in troubles):
        yield Trouble("again", {"n": again}, "warn", page="events")
    if next(store.quarantined(), None) is not None:
        yield Trouble("quarantine", kind="warn", page="quarantine")
    if (refused := last_noted(store, now)) is not None:
        yield Trouble("refused", {"ago": spoken.ago(refused[0], now)}, "warn", page="settings")
    for passes in receiver.reconciliations.values():
        state = passes.state()
        if state is not None and state.problem is not None:
            told = {"provider": passes.account.title, "problem": state.problem}
            yield Trouble("reconciliation", told, "warn", page="losses")
    went = None if receiver.polling is None else receiver.polling.went()
    if went is not None and went.problem is not None:
        yield Trouble("polling", {"problem": went.problem}, "warn", page="losses")
    if (warning := store.warning()) is not None:
        yield Trouble("store", {"warning": warning}, "warn")
