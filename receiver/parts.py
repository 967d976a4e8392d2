"""The parts of one running service, and how those that work by themselves start and stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from receiver import ids
from receiver.alerts.watching import Alerts
from receiver.config import Config
from receiver.counting import Counting
from receiver.environment import Environment
from receiver.heartbeat import Heartbeat
from receiver.ingest import Ingest
from receiver.polling import Polling
from receiver.providers import Sender
from receiver.providers.zimsend.api import ZimSend
from receiver.readiness import Readiness
from receiver.receiving import Receiving
from receiver.reconciliation.passes import Reconciliation
from receiver.registry import Registry
from receiver.store import Store
from receiver.upkeep import Upkeep
from receiver.worker import Surroundings, Worker


@dataclass(frozen=True)
class Host:
    """The program that a service is built into.

    :param registry: its handlers; there may come to be more.
    :param inside: what each of them is called inside of.
    :param authorize: whether whoever asks may see the dashboard; `None`: its password says so.
    :param here: the address at which this machine reaches the service.
    """

    registry: Registry
    inside: Surroundings
    authorize: Callable[[], bool] | None
    here: Callable[[], str]


@dataclass(frozen=True)
class Receiver:
    """The parts of one running service: `app.extensions["receiver"]`."""

    config: Config
    store: Store
    registry: Registry
    ingest: Ingest
    receiving: Receiving
    worker: Worker
    upkeep: Upkeep
    counting: Counting
    #: What SMS can be sent through, by provider: what its `Sending.open` made.
    senders: Mapping[str, Sender]
    #: Of those, whom a request is sent through that names none; each only where the one before
    #: surely sent nothing.
    send_with: tuple[str, ...]
    #: Requests of this process that may wait for providers at once; the others are the webhook's.
    waiting: threading.BoundedSemaphore
    #: By provider, for each at which there is an account.
    reconciliations: Mapping[str, Reconciliation]
    #: Where there is an account at sipgate.
    polling: Polling | None
    #: What `/readyz` answers.
    readiness: Readiness
    #: Where there is somebody to tell that something is wrong, or that all is well.
    alerts: Alerts | None
    heartbeat: Heartbeat | None
    #: The wall clock, in microseconds.
    now: Callable[[], int]
    #: What the settings were read from.
    environment: Environment
    #: What each handler is called inside of.
    inside: Surroundings
    #: Where it is built into another program.
    host: Host | None

    @property
    def zimsend(self) -> ZimSend | None:
        """The account at ZimSend, if there is one: for calls that somebody waits for."""
        sender = self.senders.get(ids.FIRST)
        return None if sender is None else cast("ZimSend", sender.client)

    def start(self) -> None:
        """Start what works beside the worker, in threads. After a fork, never before one."""
        for start in self.starts():
            start()

    def starts(self) -> list[Callable[[], None]]:
        """What `start` calls; each raises `RuntimeError` if the system allows no more threads."""
        parts = (*self.reconciliations.values(), self.polling, self.alerts, self.heartbeat)
        return [self.upkeep.start, *(part.start for part in parts if part is not None)]

    def stop(self) -> None:
        """Begin nothing more, the worker included. Safe in a signal handler: it sets flags."""
        self.worker.stop()
        self.upkeep.stop()
        for reconciliation in self.reconciliations.values():
            reconciliation.stop()
        for part in (self.polling, self.alerts, self.heartbeat):
            if part is not None:
                part.stop()

    def notice_gap(self) -> None:
        """Reports may have been missed, of every provider."""
        for reconciliation in self.reconciliations.values():
            reconciliation.notice_gap()


def parts(app: Flask | None = None) -> Receiver:
    """The parts of an application; by default of the one whose context this is."""
    return cast("Receiver", (app or current_app).extensions["receiver"])
