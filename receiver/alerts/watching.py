"""Looks, judges, and sends: one process of all, on any number of machines.

A turn in the store says which one looks; what it goes on from, and what is still to be sent, are
notes there. Both are written before anything is sent, in one transaction. So whoever is killed
leaves it to the next one, and only a kill between a sending and its note sends twice.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Sequence

from receiver import times, turns
from receiver.alerts import sending
from receiver.alerts.looking import Looking
from receiver.alerts.rules import Message, State, judge
from receiver.alerts.sending import Parcel
from receiver.errors import ReceiverError
from receiver.store import Store
from receiver.times import MINUTE, SECOND

log = logging.getLogger(__name__)

_TURN = "alerts"
_STATE, _UNSENT = "alerts", "alerts unsent"
#: Between two looks of all processes; and for how long one that says nothing keeps the turn.
EVERY = 15 * SECOND
LEASE = 45 * SECOND
#: How often a message is tried for a target: after 1, 2, 4 and 8 minutes again.
_TRIES = 5
#: Messages that wait for their targets, at most: the newest.
_MOST_UNSENT = 100

#: A parcel, how often it was tried, and when it is due.
_Unsent = tuple[Parcel, int, int]


class Alerts:
    """In a thread of each process that runs handlers.

    :param targets: addresses of apprise.
    :param where: the service, as whoever reads a message knows it.
    """

    #: Seconds between two looks at whose turn it is.
    LOOK = 5.0

    def __init__(
        self,
        targets: Sequence[str],
        looking: Looking,
        store: Store,
        now: Callable[[], int] = times.now,
        *,
        where: str | None = None,
        send: Callable[[Sequence[str], Sequence[Parcel]], list[str | None]] = sending.send,
    ) -> None:
        self._targets = targets
        self._looking = looking
        self._store = store
        self._now = now
        self._where = where or socket.gethostname()
        self._send = send
        #: Until when the turn is ours.
        self._until = 0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Run in a thread of its own. After a fork, never before one."""
        threading.Thread(target=self._run, name="alerts", daemon=True).start()

    def stop(self) -> None:
        """Begin nothing more. Safe in a signal handler."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self.LOOK):
            try:
                self.step()
            except Exception as error:
                known = isinstance(error, ReceiverError)
                log.error("alerts failed and go on: %s", error, exc_info=None if known else error)
                self._stopped.wait(2 * self.LOOK)

    def step(self) -> None:
        """Look, and send what is to be told, if it is this process's turn."""
        now = self._now()
        if not turns.claim(self._store, _TURN, now, now + LEASE):
            return
        self._until = now + LEASE
        state = State.from_json(self._store.note(_STATE))
        messages, after = judge(self._looking.look(now), state, now)
        unsent = [*self._unsent(now), *self._parcels(messages, now)][-_MOST_UNSENT:]
        for message in messages:
            log.warning("alert: %s", message.title)
        if not self._keep_turn():
            return  # what it has seen, the other one has seen as well
        if after != state or messages:
            self._store.write_notes({_STATE: after.to_json(), _UNSENT: _written(unsent)})
        self._deliver(unsent, now)
        self._store.keep_turn(_TURN, self._until, now + EVERY)

    def _deliver(self, unsent: Sequence[_Unsent], now: int) -> None:
        """Send what is due; what fails waits for its next try."""
        due = [item for item in unsent if item[2] <= now]
        if not due or self._stopped.is_set():
            return
        left = [item for item in unsent if item[2] > now]
        ends = self._send(self._targets, [parcel for parcel, _, _ in due])
        for (parcel, tries, _), problem in zip(due, ends, strict=True):
            if problem is None:
                continue
            target = sending.name_of(self._targets, parcel.target)
            if tries + 1 < _TRIES:
                left.append((parcel, tries + 1, now + (MINUTE << tries)))
                if not tries:
                    log.warning("an alert did not reach %s, it is tried again: %s", target, problem)
            else:
                log.error("an alert never reached %s, and is given up: %s", target, problem)
        if self._keep_turn():
            self._store.write_notes({_UNSENT: _written(left)})

    def _keep_turn(self) -> bool:
        later = self._now() + LEASE
        kept = self._store.keep_turn(_TURN, self._until, later)
        if kept:
            self._until = later
        return kept

    def _parcels(self, messages: Sequence[Message], now: int) -> list[_Unsent]:
        return [
            (
                Parcel(
                    target,
                    f"zimsend-receiver: {message.title}",
                    f"{message.text}\n({self._where})",
                    message.bad,
                ),
                0,
                now,
            )
            for message in messages
            for target in range(len(self._targets))
        ]

    def _unsent(self, now: int) -> list[_Unsent]:
        """What waits. A time that lies far ahead was written by a clock that was wrong."""
        try:
            waiting = [
                (Parcel(*parcel), tries, min(due, now + (MINUTE << _TRIES)))
                for parcel, tries, due in json.loads(self._store.note(_UNSENT) or "[]")
            ]
        except (ValueError, TypeError):  # another release's
            return []
        return [item for item in waiting if item[0].target < len(self._targets)]


def _written(unsent: Sequence[_Unsent]) -> str | None:
    """For a note; `None` takes it away."""
    return json.dumps(unsent) if unsent else None
