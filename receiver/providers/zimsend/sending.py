"""What a request to send and ZimSend's answer to it tell together, as events. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from receiver import status, times
from receiver.errors import Unusable
from receiver.event import Incoming
from receiver.mirror import number
from receiver.providers.zimsend.api.answers import Message
from receiver.providers.zimsend.webhook import parse
from receiver.strict_json import read_json, text_of

SOURCE = "gateway"
#: What is said of a message beside its states.
_SHOWN = ("to", "message", "metadata", "priority", "device_id")
#: What the answer may say better than the request.
_TOLD = ("to", "device_id", "queued_at")
Fields = Mapping[str, Any]

_BLANKS = re.compile(r"[ \t\n\r]*")
#: A member of an object, as far as its value does not matter.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)


def with_webhook(body: bytes, url: str) -> bytes:
    """A request with a `webhook_url`."""
    return with_field(body, "webhook_url", url)


def with_field(body: bytes, name: str, value: str) -> bytes:
    """A JSON object with a field: its own if it has one that is not null, else this.

    Nothing else in its text is changed. What is no JSON object stays as it is, so that its reader
    can say so.
    """
    fields = _fields(body)
    if fields is None or fields.get(name) is not None:
        return body
    text, told = body.decode(), json.dumps(value)
    if name in fields:  # but null, as some programs write what they do not have
        start, end = _value(text, name)
        return (text[:start] + told + text[end:]).encode()
    start = text.index("{") + 1
    comma = ", " if fields else ""
    return f'{text[:start]}"{name}": {told}{comma}{text[start:]}'.encode()


def _value(text: str, name: str) -> tuple[int, int]:
    """Where an object's value stands that counts; of duplicate keys that is the last one."""
    at, found = text.index("{") + 1, (0, 0)
    while True:
        key, at = _DECODER.raw_decode(text, _after_blanks(text, at))
        start = _after_blanks(text, _after_blanks(text, at) + len(":"))
        _, end = _DECODER.raw_decode(text, start)
        if key == name:
            found = start, end
        at = _after_blanks(text, end) + len(",")
        if text[at - 1] == "}":
            return found


def _after_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return match.end() if match else at


def queued(
    body: bytes, answer: bytes, device_id: str | None, shows_text: bool
) -> list[dict[str, Any]]:
    """What the answer to a request to send, and the request, say of each message that was queued.

    :param device_id: the phone that was asked for.
    :param shows_text: whether `message` in the request is the text of the SMS.
    """
    asked, told = _fields(body) or {}, _fields(answer) or {}
    if told.get("success") is False:
        return []
    found = []
    for row, each in _pairs(asked, told):
        message_id = row.get("message_id")
        if text_of(message_id) and row.get("status") != "failed":
            data = {name: each.get(name) for name in ("to", "message", "metadata", "priority")}
            data |= {"device_id": device_id, "queued_at": told.get("queued_at")}
            if not shows_text:
                del data["message"]
            data |= {name: row.get(name) or data.get(name) for name in ("message_id", *_TOLD)}
            found.append({name: value for name, value in data.items() if value is not None})
    return found


def changed(message_id: str, state: str, asked_at: int, answer: bytes) -> list[dict[str, Any]]:
    """The message that a request was about, if it was carried out.

    :param asked_at: microseconds; a time in the answer might be that of its first sending.
    """
    told = _fields(answer) or {}
    if told.get("success") is False:
        return []
    return [{"message_id": message_id, f"{state}_at": times.iso(asked_at)}]


def shown(message: Message) -> dict[str, Any]:
    """What an answer says of a message beside its states."""
    data = {name: message.raw.get(name) for name in ("message_id", *_SHOWN)}
    return {name: value for name, value in data.items() if value is not None}


def events(
    state: str, messages: Iterable[Fields], *, now: int, retention: int, text_mode: str
) -> list[Incoming]:
    """Events that messages have reached a state.

    Without a time that is told with it, an event says none: the message may have failed before the
    answer came, and must not look as if it had been sent again after that.

    :param messages: `data` of each, with a `message_id`.
    :param now: microseconds; likewise `retention`, see `parse` of the provider.
    """
    found = []
    now = times.receipt(now)
    for data in messages:
        envelope: dict[str, Any] = {
            "event": f"sms.{state}",
            "event_id": f"gateway:{data['message_id']}:{state}",
            "data": {**data, "status": state},
        }
        at = status.usable_time(data.get(f"{state}_at"), now, retention)
        if at is not None:
            time = times.iso(at)
            envelope["event_id"] += f":{time}"
            envelope["timestamp"] = envelope["data"][f"{state}_at"] = time
        body = json.dumps(envelope, separators=(",", ":")).encode("ascii")
        with suppress(Unusable):  # nested too deep, by one level
            found.append(
                parse(
                    body, received_at=now, retention=retention, text_mode=text_mode, source=SOURCE
                )
            )
    return found


def _pairs(asked: Fields, told: Fields) -> Iterator[tuple[Fields, Fields]]:
    """What an answer says of each message, and what was asked for it, as far as one can tell."""
    rows, ids = told.get("messages"), told.get("message_ids")
    if isinstance(rows, list):
        rows = [row if isinstance(row, dict) else {} for row in rows]
    elif isinstance(ids, list):
        rows = [{"message_id": message_id} for message_id in ids]
    else:
        yield told, asked
        return
    each = _each(asked)
    numbers = [_number(one) for one in each]
    own = ("to", "message", "metadata") if "messages" in asked else ("to",)
    shared = {name: value for name, value in asked.items() if name not in own}
    for position, row in enumerate(rows):
        to = _number(row)
        # By its place, if nothing speaks against that; else by its number, if it is there once.
        if len(rows) == len(each) and to in ("", numbers[position]):
            yield row, each[position]
        elif to and numbers.count(to) == 1:
            yield row, each[numbers.index(to)]
        else:
            yield row, shared


def _each(asked: Fields) -> list[Fields]:
    """What a bulk request asks for each of its messages."""
    messages, recipients = asked.get("messages"), asked.get("recipients")
    if isinstance(messages, list):
        return [{**asked, **(one if isinstance(one, dict) else {})} for one in messages]
    return [{**asked, "to": to} for to in recipients] if isinstance(recipients, list) else []


def _number(fields: Fields) -> str:
    to = fields.get("to")
    return number(text_of(to) or "")


def _fields(body: bytes) -> dict[str, Any] | None:
    """A JSON object; `None` if it is none."""
    try:
        fields = read_json(body)
    except Unusable:
        return None
    return fields if isinstance(fields, dict) else None
