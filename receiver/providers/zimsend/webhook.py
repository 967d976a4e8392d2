"""ZimSend's webhook: its signature, and what its JSON says.

Pure: no Flask, no database, no clock.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from itsdangerous import HMACAlgorithm

from receiver import status, times
from receiver.errors import Refused, Unusable
from receiver.event import (
    ALIASES,
    EXPIRED,
    Incoming,
    Rejected,
    clean_id,
    clean_type,
    is_test,
    own_id,
)
from receiver.providers.contract import Item
from receiver.redaction import redact
from receiver.store.contract import Outcome
from receiver.strict_json import read_signed, text_of

#: Where its events are received, and the header of their signature.
PATH = "/webhooks/zimsend"
SIGNATURE = "X-Webhook-Signature"

# --- the signature: hex of HMAC-SHA256 over the exact bytes of the body

#: `HMACAlgorithm` is the bare HMAC with a comparison in constant time. `Signer` would derive
#: another key and append a separator.
_HMAC = HMACAlgorithm(hashlib.sha256)
_HEX_DIGEST = re.compile(r"(?:sha256=)?([0-9a-fA-F]{64})", re.ASCII)


def sign(secret: bytes, body: bytes) -> str:
    """The value of `X-Webhook-Signature` for this body: 64 lowercase hex digits."""
    return _HMAC.get_signature(secret, body).hex()


def verify(secrets: Sequence[bytes], body: bytes, header: str | None) -> bool:
    """Whether the header signs these bytes with one of the secrets.

    Every secret is tried, also after one has matched, so that the time taken does not tell
    which one is in use.

    :param header: the header as the server joined it (several are joined by commas; they count
        as one if all say the same), or `None`.
    """
    claimed = _read(header)
    if claimed is None:
        return False
    matches: Iterable[bool] = [_HMAC.verify_signature(s, body, claimed) for s in secrets]
    return any(matches)


def _read(header: str | None) -> bytes | None:
    """The 32 bytes that the header claims; `None` for anything malformed or ambiguous."""
    if not header:
        return None
    claims = set()
    for part in header.split(","):
        match = _HEX_DIGEST.fullmatch(part.strip(" \t"))
        if match is None:
            return None
        claims.add(bytes.fromhex(match[1]))
    return claims.pop() if len(claims) == 1 else None


# --- what is signed

#: Where the devices' events keep their own time; a message's events: see `status.project`.
_DEVICE_TIMES = {"device.connected": "connected_at", "device.disconnected": "disconnected_at"}


def parse(
    body: bytes,
    *,
    received_at: int,
    retention: int,
    text_mode: str = "full",
    source: str = "webhook",
) -> Incoming:
    """Make an event of a verified body.

    :param received_at: when it was first received.
    :param retention: microseconds after which an event is too old to be let in.
    :param text_mode: `full`, `masked` or `none`: what to keep of the SMS text.
    :param source: see `Incoming.source`.
    :raises Unusable: if the body is not an event, or one that is too old.
    """
    payload = read_signed(body)
    if not isinstance(payload, dict):
        raise Unusable("the body is JSON, but not an object")
    named = payload.get("event")
    if type(named) is not str:
        raise Unusable("the object has no string `event`")
    timestamp = times.read(payload.get("timestamp"))
    if timestamp is not None and timestamp < times.YEAR_2000:
        timestamp = None
    if timestamp is not None and timestamp < received_at - retention:
        days = retention // times.DAY
        raise Unusable(
            f"its `timestamp` is older than {days} days, so it may be a replay of an event "
            "whose id has been forgotten"
        )
    if timestamp is not None and timestamp > times.latest_from(received_at):
        timestamp = None
    original = None
    if text_mode != "full":
        original = hashlib.sha256(body).hexdigest(), len(body)
        if not isinstance(payload.get("data", {}), dict):
            payload["data"] = None  # no known shape, so nobody can say where the text is
        payload = redact(payload, text_mode)
        body = json.dumps(payload, separators=(",", ":")).encode("ascii")

    event_type = clean_type(ALIASES.get(named, named))
    event_id = clean_id(text_of(payload.get("event_id")) or own_id(body))
    data = payload.get("data")
    if not isinstance(data, dict):
        data = {}
    message_id = text_of(data.get("message_id"))
    message_id = clean_id(message_id) if message_id else None

    own_time = _own_time(event_type, data, received_at, retention)
    reported_at = own_time if own_time is not None else timestamp
    says = None
    if message_id is not None:
        says = status.project(
            event_type,
            data,
            event_id=event_id,
            timestamp=timestamp,
            received_at=received_at,
            retention=retention,
        )
        if says is not None and is_test(payload, event_id, message_id):
            status.mark_test(says, timestamp or received_at, event_id)
    return Incoming(
        id=event_id,
        type=event_type,
        message_id=message_id,
        occurred_at=reported_at if reported_at is not None else received_at,
        received_at=received_at,
        timestamp=timestamp,
        reported_at=reported_at,
        has_error=says is not None and "error" in says,
        body=body,
        redacted=text_mode != "full",
        says=says,
        source=source,
        original=original,
    )


def _own_time(
    event_type: str, data: Mapping[str, Any], received_at: int, retention: int
) -> int | None:
    state = status.STATE_OF_TYPE.get(event_type)
    key = f"{state}_at" if state else _DEVICE_TIMES.get(event_type)
    return status.usable_time(data.get(key), received_at, retention) if key else None


# --- as the service asks it (receiver/providers/contract.py)


def parse_all(body: bytes, **how: Any) -> list[Item]:
    """A body is one event."""
    return [parse(body, **how)]


def answer(items: Sequence[Item], outcomes: Sequence[Outcome]) -> str:
    """
    :raises Refused: 400 for what went into quarantine.
    """
    (item,), (outcome,) = items, outcomes
    if isinstance(item, Rejected):
        raise Refused(400, item.reason)
    if outcome == "quarantined":
        raise Refused(400, EXPIRED)
    return f'{{"status": "{outcome}", "event_id": {json.dumps(item.id)}}}'
