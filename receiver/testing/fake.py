"""A ZimSend for tests, and what became of each event that it sent."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, Unpack

from flask import Flask

from receiver import ids, status, times
from receiver.event import ALIASES, Event, key_of
from receiver.parts import parts
from receiver.payloads import Said, refuse_unknown
from receiver.providers import PROVIDERS
from receiver.registry import Registry
from receiver.service import close, create_app, register_handlers
from receiver.store import Selection
from receiver.testing import running
from receiver.testing.running import Receiving
from receiver.worker import event_of

#: What `FakeZimSend.handlers` takes.
Handlers = str | ModuleType | Registry | Callable[[Registry], object]


class Built(Protocol):
    """A receiver inside another program: a `receiver.embedded.Embedded`."""

    @property
    def application(self) -> Flask:
        """Its own application."""


class FakeZimSend:
    """Sends events to a receiver of your handlers, by its real webhook, and runs them at once.

    What is real: signature, webhook, database (SQLite), worker. What is not: the clock, which
    stands still until you move it; the time-outs of handlers; and threads, for all of them run in
    yours, one after the other.

    :param folder: where the database is made; it should be empty.
    """

    def __init__(self, folder: Path, now: Callable[[], int] = times.now) -> None:
        self._folder = folder
        self._began = now()
        self._ahead = 0
        self._receiving: Receiving | None = None
        self._own: Flask | None = None

    def handlers(self, *given: Handlers, **settings: str) -> None:
        """Say what is tested. Once, before the first event.

        :param given: names of modules, as in `HANDLERS`; modules; `register` functions; or
            registries that are filled already.
        :param settings: of the service, like `STORE_TEXT="masked"`.
        :raises ConfigError: if a module cannot be imported or registered, or a setting is wrong.
        """
        self._refuse_second()
        environ = {
            "ZIMSEND_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(16)}",
            "SMSCX_WEBHOOK_TOKEN": secrets.token_hex(16),
            "DATABASE_URL": f"sqlite:///{self._folder / 'receiver.db'}",
            "ALLOW_EPHEMERAL_SQLITE": "1",
            **settings,
            "HANDLERS": running.__name__,
        }
        app = create_app(environ, self._now)
        registry = parts(app).registry
        for each in given:
            if isinstance(each, str):
                register_handlers(registry, each.split(","))
            elif isinstance(each, Registry):
                running.copy(each, registry)
                for function in each.dead_functions:
                    registry.on_dead(function)
            else:
                (each.register if isinstance(each, ModuleType) else each)(registry)
        self._own = app
        self._receiving = Receiving(app, self._now, app.test_client)

    def use(self, app: Flask | Built, prefix: str | None = None) -> None:
        """Test the handlers of an application that you have, in its database, which is brought up
        to date. Its own clock goes on; what the test moves is the worker's.

        :param app: of `create_app`; a program written with Flask that a receiver was built into; or
            what was built into any other one.
        :param prefix: of the receiver, where several were built into one program.
        :raises ValueError: if there is no receiver, or if there are several.
        """
        self._refuse_second()
        inner, prefix = _built_in(app, prefix)
        here = parts(inner)
        outer = app if isinstance(app, Flask) else inner
        self._receiving = Receiving(
            inner, lambda: here.now() + self._ahead, outer.test_client, prefix
        )

    def send(
        self,
        type: str = "sms.delivered",
        *,
        id: str | None = None,
        message_id: str | None = None,
        to: str = "+33612345678",
        occurred_at: datetime | None = None,
        provider: str = ids.FIRST,
        **said: Unpack[Said],
    ) -> Result:
        """Send an event as the provider would, and run the handlers that are due.

        Each event is sent a second after the one before, unless you say when it happened.

        :param type: one that the provider documents; others can be sent with `post`.
        :param id: the event's; the same again is a duplicate. A new one each by default.
        :param message_id: a new message each by default.
        :param occurred_at: when what it tells happened; now by default. Without a zone it is UTC.
        :param provider: `zimsend` or `smscx`.
        :param said: what it says beside that: `error_code`, `error_message`, `text`, `metadata`,
            `device_id`.
        :raises TypeError: for what no report says.
        :raises ValueError: for a type that is not documented, and what such an event cannot say.
        """
        refuse_unknown(said, Said.__annotations__, "a report")
        sender = PROVIDERS.get(provider)
        if sender is None or sender.door is None:
            senders = ", ".join(name for name, each in PROVIDERS.items() if each.door is not None)
            raise ValueError(f"{provider!r} sends no events: {senders} do")
        kind = ALIASES.get(type, type)
        if kind not in sender.samples:
            known = ", ".join(sender.samples)
            raise ValueError(f"{sender.title} documents no {type!r}, but {known}; see also `post`")
        self._ahead += times.SECOND
        moment = (
            self._ready.received_now()
            if occurred_at is None
            else times.read(occurred_at.isoformat())
        )
        body = sender.sample(
            kind,
            event_id=f"evt_{secrets.token_hex(6)}" if id is None else id,
            message_id=f"msg_{secrets.token_hex(6)}" if message_id is None else message_id,
            to=to,
            now=moment,
            **said,
        )
        return self.post(body, provider=provider)

    def post(self, body: bytes | Mapping[str, Any], *, provider: str = ids.FIRST) -> Result:
        """Send a body of your own, signed, and run the handlers that are due.

        :param body: an object is written as JSON.
        :raises ValueError: for an object with a number that JSON does not have, like infinity.
        """
        raw = body if isinstance(body, bytes) else json.dumps(body, allow_nan=False).encode()
        status_code, answer, event_id = self._ready.post(raw, provider)
        self._ready.run()
        return Result(status_code, answer, event_id, self._ready)

    def wait(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0) -> None:
        """Move the clock, and run what becomes due on the way, each attempt at its time."""
        until = self._ahead + int((seconds + 60 * minutes + 3_600 * hours) * times.SECOND)
        self._move(until)
        self._ahead = until

    def finish(self) -> None:
        """Move the clock until each handler has done its work or has given up."""
        self._move(None)

    def _move(self, until: int | None) -> None:
        while (due := self._ready.next_due()) is not None:
            ahead = self._ahead + max(0, due - self._ready.now())
            if until is not None and ahead > until:
                break
            self._ahead = ahead
            if not self._ready.run() and self._ready.next_due() == due:
                raise RuntimeError("work is due, and cannot be run: is it held, since a restore?")

    def status(self, message_id: str) -> str | None:
        """What has become of a message, as `/v1/sms/status` would tell it; `None` if unknown.

        :param message_id: another provider's is written with its name, `smscx:…`.
        """
        found = self._ready.store.evidence(key_of(message_id), limit=0)
        return None if found is None else status.status(found[0])

    def close(self) -> None:
        """Close the database of `handlers`."""
        if self._own is not None:
            close(self._own)

    def _now(self) -> int:
        return self._began + self._ahead

    @property
    def _ready(self) -> Receiving:
        if self._receiving is None:
            raise RuntimeError('say first which handlers: zimsend.handlers("my_handlers")')
        return self._receiving

    def _refuse_second(self) -> None:
        if self._receiving is not None:
            raise RuntimeError("the handlers have been named already: name all of them at once")


def _built_in(app: Flask | Built, prefix: str | None) -> tuple[Flask, str]:
    """The receiver's own application, and what stands before its paths."""
    if not isinstance(app, Flask):
        return app.application, ""
    if "receiver" in app.extensions:
        return app, ""
    there: Mapping[str, Built] = app.extensions.get("zimsend_receivers", {})
    if not there:
        raise ValueError(f"{app.name} has no receiver: see ZimSendReceiver, or create_app")
    if prefix is None and len(there) == 1:
        (prefix,) = there
    if prefix is None or prefix not in there:
        raise ValueError(f"say which receiver: prefix= is one of {', '.join(there)}")
    return there[prefix].application, prefix


@dataclass(frozen=True)
class Result:
    """What became of an event that was sent. What is told of handlers is as of now."""

    #: The answer of the webhook: 200, or why not.
    status_code: int
    #: Its JSON.
    answer: Mapping[str, Any]
    #: As a handler sees it; empty if it was not stored.
    event_id: str
    _receiving: Receiving = field(repr=False)

    @property
    def duplicate(self) -> bool:
        """It had been received before, so no handler got it again."""
        return self.answer.get("status") == "duplicate" or bool(self.answer.get("duplicates"))

    @property
    def calls(self) -> dict[str, str]:
        """What became of it, by the names of the handlers that want it: `done`; `failed`, and will
        be tried again; `dead`, and will not; `waiting`, behind another event of its message."""
        return {each["handler"]: _state(each) for each in self._deliveries()}

    @property
    def attempts(self) -> dict[str, int]:
        """How often each of them was called."""
        return {each["handler"]: each["attempts"] for each in self._deliveries()}

    @property
    def errors(self) -> dict[str, BaseException]:
        """What each of them raised, if anything, the last time it did. `raise result.errors[…]`
        shows where."""
        raised = self._receiving.raised
        return {name: error for (event_id, name), error in raised.items() if event_id == self._key}

    @property
    def event(self) -> Event:
        """What handlers were given.

        :raises LookupError: if it was not stored.
        """
        claim = self._receiving.store.unclaimed(self._key, "")
        if claim is None:
            raise LookupError(f"it was not stored: {self.status_code} {dict(self.answer)}")
        return event_of(claim)

    @property
    def _key(self) -> str:
        return key_of(self.event_id)

    def _deliveries(self) -> list[dict[str, Any]]:
        found = self._receiving.store.events(Selection(ids=[self._key])) if self.event_id else ()
        return [delivery for event in found for delivery in event["deliveries"]]


def _state(delivery: Mapping[str, Any]) -> str:
    if delivery["state"] == "pending":
        return "failed" if delivery["attempts"] else "waiting"
    return str(delivery["state"])
