"""What was asked of sipgate and is not found in its history yet.

An intent is written down before its request leaves, in a note of its own, so that whatever ends the
process afterwards, it is known that the SMS may have gone. Its note goes when the SMS is found,
when it surely was not sent, or when nobody looks for it any more. Processes write different notes,
so none waits for another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from receiver import times
from receiver.errors import Unusable
from receiver.event import Incoming
from receiver.providers.sipgate.events import SEND, parse, wrap
from receiver.providers.sipgate.history import digest, number
from receiver.providers.sipgate.matching import Send
from receiver.redaction import redact as hidden
from receiver.strict_json import read_text

PREFIX = "sipgate:send:"


@dataclass(frozen=True, slots=True)
class Intent:
    """An SMS that was, or is about to be, asked for. Times are microseconds.

    :param id: ours.
    :param text: SHA-256 of the text.
    :param send_at: when it is to go out; `None`: at once.
    :param item: the request as it is stored, redacted as texts are to be stored.
    """

    id: str
    text: str
    asked_at: int
    send_at: int | None
    item: Mapping[str, Any] = field(repr=False)

    @property
    def at(self) -> int:
        """When it goes out."""
        return self.asked_at if self.send_at is None else self.send_at

    @property
    def extension(self) -> str:
        return str(self.item["smsId"])

    @property
    def to(self) -> str:
        return str(self.item["recipient"])

    @property
    def send(self) -> Send:
        """What it is found by."""
        scheduled = self.send_at is not None
        return Send(self.id, self.extension, number(self.to), self.text, self.at, scheduled)


def intent(
    own_id: str,
    *,
    sms_id: str,
    to: str,
    text: str,
    now: int,
    send_at: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    text_mode: str = "full",
) -> Intent:
    """What is written down of an SMS that is about to be asked for."""
    item = {
        "smsId": sms_id,
        "recipient": to,
        "message": text,
        "askedAt": times.iso(now),
        "sendAt": None if send_at is None else times.iso(send_at),
        "metadata": metadata,
    }
    item = {name: value for name, value in item.items() if value is not None}
    if text_mode != "full":
        item = hidden(item, text_mode)
    found = Intent(own_id, digest(text), now, send_at, item)
    if _read(_text(found)) is None:  # nested too deep, by some levels
        del item["metadata"]
    return found


def queued(
    intent: Intent, *, now: int, retention: int, text_mode: str, source: str
) -> list[Incoming]:
    """The event that it was asked for: the same one, whoever tells it, and how often.

    :param now: microseconds; likewise `retention`, see `parse`.
    """
    body = wrap(SEND, dict(intent.item), intent.id)
    try:
        found = parse(
            body, received_at=now, retention=retention, text_mode=text_mode, source=source
        )
    except Unusable:  # too old
        return []
    return [event for event in found if isinstance(event, Incoming)]


class Notes(Protocol):
    """What is asked of the store; see `receiver.store.contract.Marks`."""

    def notes(self, prefix: str) -> Mapping[str, str]: ...
    def write_notes(self, texts: Mapping[str, str | None]) -> None: ...


class Book:
    """The intents that are written down."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def keep(self, intents: Iterable[Intent]) -> None:
        """Write them down, all in one transaction.

        :raises StoreUnavailable: if that is not surely done; then nothing may be sent.
        """
        self._notes.write_notes({PREFIX + each.id: _text(each) for each in intents})

    def drop(self, own_ids: Iterable[str]) -> None:
        """Look for these no more."""
        names = [PREFIX + own_id for own_id in own_ids]
        if names:
            self._notes.write_notes(dict.fromkeys(names))

    def open(self) -> list[Intent]:
        """Those that are looked for."""
        found = (_read(text) for text in self._notes.notes(PREFIX).values())
        return [each for each in found if each is not None]


def _text(intent: Intent) -> str:
    told = {name: getattr(intent, name) for name in ("id", "text", "asked_at", "send_at")}
    return json.dumps({**told, "item": intent.item}, separators=(",", ":"))


def _read(text: str) -> Intent | None:
    """:returns: `None` for what another release has written differently."""
    try:
        told = read_text(text)
        item = told["item"]
        found = Intent(told["id"], told["text"], told["asked_at"], told["send_at"], item)
        return found if found.extension and found.to and type(found.at) is int else None
    except (Unusable, KeyError, TypeError):
        return None
