"""How each provider is called: what the shared suite needs to know, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from receiver import times
from receiver.event import Read, read_envelope
from receiver.providers.contract import Item
from receiver.providers.sipgate import events as sipgate
from receiver.providers.sipgate import samples as sipgate_samples
from receiver.providers.smscx import samples as smscx_samples
from receiver.providers.smscx import webhook as smscx
from receiver.providers.zimsend import samples as zimsend_samples
from receiver.providers.zimsend import webhook as zimsend

RETENTION = 90 * times.DAY
NOW = 1_795_162_542 * times.SECOND  # 2026-11-20T08:15:42Z


#: Objects that are no envelope.
_NO_ENVELOPES = (b"{}", b'{"event": 1, "data": []}', b'{"event": null, "data": []}')


class Caller(NamedTuple):
    name: str
    parse: Callable[..., Sequence[Item]]
    #: The item in a stored body as it came, and by our own names.
    read: Read
    samples: Sequence[str]
    sample: Callable[..., bytes]
    #: The report that a message has this state: `report(state, message_id, time, text)`.
    report: Callable[..., bytes]
    #: The state of a report that only this provider knows; it is none of ours.
    unknown: bytes
    #: The states that it reports.
    states: Sequence[str] = ("queued", "sent", "delivered", "failed")
    #: JSON objects that are none of its reports, so that the body is `Unusable`.
    useless: Sequence[bytes] = _NO_ENVELOPES

    def take(self, body: bytes, *, text_mode: str = "full") -> Sequence[Item]:
        return self.parse(body, received_at=NOW, retention=RETENTION, text_mode=text_mode)


def _zimsend_report(
    state: str = "sent", message_id: Any = "m", time: Any = None, text: Any = None
) -> bytes:
    data = {"message_id": message_id, "to": "+33612345678", "status": state}
    if text is not None:
        data["message"] = text
    if state == "failed":
        data["error"] = {"code": "27", "message": "no"}
    envelope = {"event": f"sms.{state}", "event_id": "e", "timestamp": time, "data": data}
    return json.dumps(envelope).encode()


_STATUS = {"queued": "ACCEPTED", "sent": "SENT", "delivered": "DELIVERED", "failed": "FAILED"}


def _smscx_report(
    state: str = "sent", message_id: Any = "m", time: Any = None, text: Any = None
) -> bytes:
    item = {"msgId": message_id, "status": _STATUS[state], "datetime": time}
    item["errorCode"] = 27 if state == "failed" else None
    if text is not None:
        item["text"] = text
    return json.dumps({"event": "dlr_update", "data": [item]}).encode()


def _sipgate_report(
    state: str = "sent", message_id: Any = "m", time: Any = None, text: Any = None
) -> bytes:
    item: dict[str, Any]
    if state == "queued":
        item = {"recipient": "+4915799000002", "message": text, "askedAt": time}
        return json.dumps({"event": sipgate.SEND, "message_id": message_id, "data": item}).encode()
    item = {"id": message_id, "type": "SMS", "direction": "OUTGOING", "target": "01579-9000002"}
    item |= {"created": time, "smsContent": text, "connectionIds": ["s0"]}
    return json.dumps({"event": sipgate.ENTRY, "data": item}).encode()


ZIMSEND = Caller(
    "zimsend",
    zimsend.parse_all,
    read_envelope,
    list(zimsend_samples.SAMPLES),
    zimsend_samples.sample,
    _zimsend_report,
    b'{"event": "sms.vanished", "data": {"message_id": "m"}}',
)
SMSCX = Caller(
    "smscx",
    smscx.parse,
    smscx.read,
    list(smscx_samples.SAMPLES),
    smscx_samples.sample,
    _smscx_report,
    b'{"event": "dlr_update", "data": [{"msgId": "m", "status": "VANISHED"}]}',
)
SIPGATE = Caller(
    "sipgate",
    sipgate.parse,
    sipgate.read,
    list(sipgate_samples.SAMPLES),
    sipgate_samples.sample,
    _sipgate_report,
    b'{"event": "GET /history", "data": {"id": "m", "type": "SMS", "direction": "INCOMING"}}',
    ("queued", "sent"),
)
CALLERS = (ZIMSEND, SMSCX, SIPGATE)
