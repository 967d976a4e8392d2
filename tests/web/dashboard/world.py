"""A shop's month of SMS, and what strangers may have written, for pages to show."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from receiver import times
from receiver.event import reject
from receiver.parts import Receiver
from receiver.providers.zimsend.webhook import parse
from receiver.store import Settlement, Want
from receiver.times import DAY, HOUR, MINUTE, SECOND

_SHOPS = ("Fleurs de Lune", "Boulangerie Petit", "Garage Martin")
_TEXTS = (
    "Bonjour {name}, votre commande {order} est prête. À bientôt, {shop}",
    "{shop} : rappel de votre rendez-vous demain à 14h30. Répondez STOP pour annuler.",
    "Your parcel {order} has been handed over to the courier.",
    "Votre code de confirmation est 482913. Ne le partagez avec personne.",
)
_NAMES = ("Zoé", "Karim", "Inès", "Loïc", "Maëlle", "Tom")
_ERRORS = (
    ("INVALID_NUMBER", "The number does not exist"),
    ("NO_CREDIT", "The SIM has no credit left"),
    ("NETWORK_ERROR", "The network did not answer"),
    ("BLOCKED_NUMBER", "The recipient has opted out"),
)
_PHONES = ("pixel-comptoir", "galaxy-atelier")

#: Texts, ids and errors that do what they can to be more than text.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)",
    "../../settings",
    "..",
    "//",
    "/etc/passwd?x=1#y&z=%2F%00",
    "\u202egnp.exe \u2066\x07\x1b[31m",
    "]]></svg><style>*{display:none}</style>",
    "=HYPERLINK(1)",
    "👩‍👩‍👧‍👦 שלום עולם مرحبا",
    "x" * 200,
    "W" * 60 + " " + "a/b\\c" * 20,
)


def fill(receiver: Receiver, *, days: int = 30, hostile: bool = True) -> None:
    """Fill a store: the same in each run, up to the clock's time."""
    chance, now = random.Random(1), receiver.now()
    items = []
    for day in range(days - 1, -1, -1):
        open_at = now - now % DAY - day * DAY + 7 * HOUR
        for number in range(chance.randint(14, 40)):
            at = open_at + number * 17 * MINUTE + chance.randint(0, 600) * SECOND
            if at > now - 10 * MINUTE:
                break
            items += list(_message(chance, f"msg_{day:02}_{number:03}", at))
    for number, text in enumerate(HOSTILE if hostile else ()):
        items += list(_stranger(text, now - HOUR + number * MINUTE))
    items += list(_devices(now))
    for begin in range(0, len(items), 500):
        batch = [_parsed(receiver, *item) for item in items[begin : begin + 500]]
        receiver.store.ingest(batch, receiver.registry.wanting, 5)
    _work(receiver, now)
    receiver.store.write_note("heartbeat", str(now))
    receiver.store.ingest(
        [
            reject(text.encode(), f"it is not JSON: {text}", received_at=now - HOUR)
            for text in ("hello", *(HOSTILE[:3] if hostile else ()))
        ],
        receiver.registry.wanting,
        5,
    )
    while receiver.store.index_texts(5):
        pass


def _message(chance: random.Random, message_id: str, at: int) -> Iterator[Any]:
    order = f"CMD-{chance.randint(1000, 9999)}"
    text = chance.choice(_TEXTS).format(
        name=chance.choice(_NAMES), order=order, shop=chance.choice(_SHOPS)
    )
    data = {
        "message_id": message_id,
        "to": f"+336{chance.randint(10_000_000, 99_999_999)}",
        "message": text,
        "device_id": chance.choice(_PHONES),
        "metadata": {"order": order},
    }
    yield "sms.sent", data | {"sent_at": times.iso(at)}, at, "webhook"
    end = chance.random()
    later = at + chance.randint(2, 90) * SECOND
    source = "reconciliation" if chance.random() < 0.02 else "webhook"
    if end < 0.9:
        yield "sms.delivered", data | {"delivered_at": times.iso(later)}, later, source
    elif end < 0.98:
        code, told = chance.choice(_ERRORS)
        error = {"code": code, "message": told}
        yield "sms.failed", data | {"failed_at": times.iso(later), "error": error}, later, source


def _stranger(text: str, at: int) -> Iterator[Any]:
    data = {
        "message_id": text,
        "to": text,
        "message": f"{text}\n{text}",
        "device_id": text,
        "metadata": {text: text, "nested": {text: [text]}},
        "error": {"code": text[:60], "message": text},
        "failed_at": times.iso(at),
    }
    yield "sms.failed", data, at, "webhook"
    yield f"sms.{text}", data, at, "webhook"


def _devices(now: int) -> Iterator[Any]:
    for phone, kind, ago in (
        (_PHONES[0], "connected", 3 * HOUR),
        (_PHONES[1], "connected", 9 * HOUR),
        (_PHONES[1], "disconnected", 40 * MINUTE),
    ):
        at = now - ago
        told = {"device_id": phone, f"{kind}_at": times.iso(at), "reason": "BATTERY_SAVER"}
        yield f"device.{kind}", told, at, "webhook"


def _parsed(receiver: Receiver, kind: str, data: dict[str, Any], at: int, source: str) -> Any:
    envelope = {
        "event": kind,
        "event_id": f"evt_{kind.partition('.')[2]}_{data.get('message_id', at)}",
        "timestamp": times.iso(at),
        "data": data,
    }
    return parse(
        json.dumps(envelope).encode(),
        received_at=at,
        retention=receiver.config.retention,
        source=source,
    )


def _work(receiver: Receiver, now: int) -> None:
    """Most work is done; some is dead, some failed and waits."""
    names = [handler.name for handler in receiver.registry]
    while True:
        wants = [Want(name, 500, 30 * SECOND, 12) for name in names]
        claims = receiver.store.work(now, [], wants, 5)
        if not claims:
            return
        ends = []
        for claim in claims:
            error = None
            state = "done"
            if claim.handler == names[-1] and claim.event_type == "sms.failed":
                state, error = (
                    "dead",
                    f"ConnectionError: the shop's sheet is away {claim.message_id}",
                )
            ends.append(Settlement(claim, state, now, error, False, _TRACEBACK if error else None))
        receiver.store.work(now, ends, [], 5)


_TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/my_handlers.py", line 42, in note_failure
  File "/srv/shop/sheets.py", line 17, in append
ConnectionError
"""
