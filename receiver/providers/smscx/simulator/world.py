"""A simulated SMS.CX: SMS, one-time codes, and callbacks of many items. No clock, no network."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from receiver.providers.simulating.world import Delivery, SimulatedWorld, Weather
from receiver.providers.smscx.webhook import REPORT
from receiver.times import SECOND, iso

#: Nothing is documented about further tries, so there is none.
TRIES = (0,)
#: Items of a callback, at most; and for how long they are collected.
MOST_ITEMS = 200
COLLECTED_FOR = SECOND
#: The numbers are not published.
STATUS_CODES = {
    "ACCEPTED": 1,
    "SENT": 2,
    "DELIVERED": 3,
    "SCHEDULED": 4,
    "FAILED": 5,
    "REJECTED": 6,
    "NO COVERAGE": 7,
}
#: `errorCode` of failures; likewise.
FAILURES = (1, 5, 11, 27, 36)
#: Numbers that begin so have opted out, and those are not reached.
OPTED_OUT, UNCOVERED = "+33600000", "+99"
CENTS = 5


@dataclass(slots=True)
class SimulatedMessage:
    """One SMS to one number, as it really is. Times are microseconds."""

    id: str
    number: int
    campaign_id: str
    to: str
    text: str
    sender: str
    created_at: int
    callback_url: str | None
    track_data: str | None = None
    scheduled_at: int | None = None
    status: str = "ACCEPTED"
    error_code: int | None = None
    updated_at: int | None = None
    #: When it came to each status; what no report tells.
    history: tuple[tuple[str, int], ...] = ()
    #: It was taken back, and nobody hears of it any more.
    deleted_at: int | None = None


@dataclass(slots=True)
class SimulatedOtp:
    """A one-time code. Times are microseconds."""

    id: str
    number: int
    to: str
    pin: str
    created_at: int
    expires_at: int
    ttl: int
    max_attempts: int
    callback_url: str | None
    track_id: str | None
    status: str = "PENDING"
    attempts: int = 0


@dataclass(slots=True, kw_only=True)
class Callback(Delivery):
    """A request with many items."""

    items: list[dict[str, Any]]
    #: Those of them that have not been received before.
    fresh: list[dict[str, Any]]

    @property
    def about(self) -> str:
        return f"with {len(self.items)} items"


class World(SimulatedWorld):
    """Everything that a simulated SMS.CX knows.

    :param began: its first moment.
    :param callback_url: the application's own, for requests that name none.
    """

    def __init__(
        self,
        *,
        began: int,
        seed: int = 0,
        weather: Weather | None = None,
        callback_url: str | None = None,
    ) -> None:
        super().__init__(began=began, seed=seed, weather=weather, tries=TRIES)
        self.callback_url = callback_url
        self.messages: dict[str, SimulatedMessage] = {}
        self.codes: dict[str, SimulatedOtp] = {}
        #: The account's contacts.
        self.groups: dict[int, list[str]] = {}
        #: How many SMS it can still pay for; `None`: all.
        self.credit: int | None = None
        #: What waits to be sent, by URL and event; each with whether it was not received before.
        self._outbox: dict[tuple[str, str], list[tuple[dict[str, Any], bool]]] = {}
        self._campaigns = 0

    # --- messages

    def send(
        self,
        numbers: list[str],
        text: str,
        *,
        sender: str,
        scheduled_at: int | None = None,
        callback_url: str | None = None,
        track_data: str | None = None,
    ) -> list[SimulatedMessage]:
        """Take SMS, one for each number."""
        self._campaigns += 1
        campaign_id = self._uuid("campaign", self._campaigns)
        return [
            self._take(
                SimulatedMessage(
                    id=self._uuid("message", number),
                    number=number,
                    campaign_id=campaign_id,
                    to=to,
                    text=text,
                    sender=sender,
                    created_at=self.now,
                    callback_url=callback_url or self.callback_url,
                    track_data=track_data,
                    scheduled_at=scheduled_at,
                )
            )
            for number, to in enumerate(numbers, len(self.messages) + 1)
        ]

    def campaign(self, count: int, rate: float) -> None:
        """Plan a customer's SMS.

        :param rate: SMS a second.
        """
        self.plan_campaign(
            count, rate, lambda to, text, number: self.send([to], text, sender="Boutique")
        )

    def _take(self, message: SimulatedMessage) -> SimulatedMessage:
        self.messages[message.id] = message
        if message.to.startswith(OPTED_OUT):
            message.status = "REJECTED"
        elif message.to.startswith(UNCOVERED):
            message.status = "NO COVERAGE"
        elif message.scheduled_at is not None:
            message.status = "SCHEDULED"
            self.plan(
                message.scheduled_at,
                lambda: self._go(message),
                lambda: message.status == "SCHEDULED" and message.deleted_at is None,
            )
        else:
            self._go(message)
        message.history += ((message.status, self.now),)
        return message

    def _go(self, message: SimulatedMessage) -> None:
        chance = self.chance("message", message.number)
        fails, code = chance.random() < self.weather.failed, chance.choice(FAILURES)
        sent_after, then_after = (int(chance.uniform(1, 8) * SECOND) for _ in range(2))
        message.status = "ACCEPTED"

        def end() -> None:
            if fails:
                message.error_code = code
            self._change(message, "FAILED" if fails else "DELIVERED")

        def go() -> None:
            self._change(message, "SENT")
            self.plan(self.now + then_after, end)

        self.plan(self.now + sent_after, go)

    def _change(self, message: SimulatedMessage, status: str) -> None:
        message.status, message.updated_at = status, self.now
        message.history += ((status, self.now),)
        if message.callback_url is not None:
            self._report(message.callback_url, REPORT, item(message))

    def delete(self, message: SimulatedMessage) -> bool:
        """Take it back, while it is scheduled."""
        if message.status != "SCHEDULED" or message.deleted_at is not None:
            return False
        message.deleted_at = self.now
        return True

    # --- one-time codes

    def new_otp(
        self,
        to: str,
        *,
        ttl: int,
        max_attempts: int,
        alphabet: str,
        length: int,
        callback_url: str | None = None,
        track_id: str | None = None,
    ) -> SimulatedOtp:
        """Make a code, and send it; its SMS is none that anybody hears of."""
        number = len(self.codes) + 1
        otp = SimulatedOtp(
            id=self._uuid("otp", number),
            number=number,
            to=to,
            pin="".join(self.chance("pin", number).choices(alphabet, k=length)),
            created_at=self.now,
            expires_at=self.now + ttl * SECOND,
            ttl=ttl,
            max_attempts=max_attempts,
            callback_url=callback_url,
            track_id=track_id,
        )
        self.codes[otp.id] = otp
        self.plan(
            otp.expires_at,
            lambda: self.change_otp(otp, "EXPIRED"),
            lambda: otp.status == "PENDING" and self.now >= otp.expires_at,
        )
        return otp

    def change_otp(self, otp: SimulatedOtp, status: str) -> None:
        otp.status = status
        if otp.callback_url is not None:
            self._report(otp.callback_url, "otp_update", otp_view(otp))

    # --- callbacks

    def _report(self, url: str, event: str, item: dict[str, Any], fresh: bool = True) -> None:
        waiting = self._outbox.setdefault((url, event), [])
        if not waiting:
            self.plan(self.now + COLLECTED_FOR, lambda: self._flush(url, event))
        waiting.append((item, fresh))

    def _flush(self, url: str, event: str) -> None:
        waiting = self._outbox.pop((url, event))
        for start in range(0, len(waiting), MOST_ITEMS):
            batch = waiting[start : start + MOST_ITEMS]
            items = [item for item, _ in batch]
            number = len(self.events) + 1
            body = json.dumps({"event": event, "data": items}, ensure_ascii=False)
            self.deliver(
                Callback(
                    id=f"callback_{self.seed}_{number}",
                    number=number,
                    type=event,
                    at=self.now,
                    url=url,
                    body=body.encode("utf-8", "backslashreplace"),
                    items=items,
                    fresh=[item for item, fresh in batch if fresh],
                )
            )

    def repeat(self, event: Delivery) -> None:
        """Send the items once more, among others."""
        assert isinstance(event, Callback)
        for each in event.fresh:
            self._report(event.url, event.type, each, fresh=False)

    def _uuid(self, *about: object) -> str:
        return str(uuid.UUID(int=self.chance("id", *about).getrandbits(128), version=4))

    # --- the truth

    def states(self) -> Iterable[str]:
        return (message.status for message in self.messages.values())

    def truth(self) -> Mapping[str, Any]:
        """What really became of every message and every callback."""
        return {
            **super().truth(),
            "simulator": "not SMS.CX",
            "messages": [
                {
                    **view(message),
                    "history": [{"status": s, "at": iso(at)} for s, at in message.history],
                    "deletedAt": _when(message.deleted_at),
                }
                for message in self.messages.values()
            ],
            "events": [
                {
                    "event_id": event.id,
                    "type": event.type,
                    "items": event.items,
                    **event.told(),
                }
                for event in self.events
            ],
        }


def _when(at: int | None) -> str | None:
    """A time as SMS.CX writes it."""
    return None if at is None else iso(at - at % SECOND).rstrip("Z").replace("T", " ")


def item(message: SimulatedMessage) -> dict[str, Any]:
    """A message as a callback tells of it."""
    return {
        "campaignId": message.campaign_id,
        "msgId": message.id,
        "statusCode": STATUS_CODES[message.status],
        "status": message.status,
        "errorCode": message.error_code,
        "datetime": _when(message.updated_at),
        "trackData": message.track_data,
    }


def view(message: SimulatedMessage) -> dict[str, Any]:
    """A message as a report's row tells of it."""
    free = message.status in ("REJECTED", "NO COVERAGE")
    return {
        "msgId": message.id,
        "status": message.status,
        "statusCode": STATUS_CODES[message.status],
        "errorCode": message.error_code,
        "createdAt": _when(message.created_at),
        "updatedAt": _when(message.updated_at),
        "inQuietHours": False,
        "cost": 0 if free else CENTS / 100,
        "to": message.to,
        "countryIso": "FR",
        "from": message.sender,
        "text": message.text,
        "source": "api",
        "channel": "sms",
    }


def sent_view(message: SimulatedMessage) -> dict[str, Any]:
    """A message as the answer to a request to send tells of it."""
    row = view(message)
    for name in ("updatedAt", "source", "channel"):
        del row[name]
    length = len(message.text)
    more = {
        "parts": 1 + length // 153,
        "textAnalysis": {"length": length, "unicode": not message.text.isascii(), "parts": 1},
    }
    if message.track_data is not None:
        more["trackData"] = message.track_data
    if message.scheduled_at is not None:
        more["scheduledAt"] = _when(message.scheduled_at)
    return {**row, **more}


def otp_view(otp: SimulatedOtp) -> dict[str, Any]:
    """A one-time code, without the code."""
    return {
        "otpId": otp.id,
        "trackId": otp.track_id,
        "phoneNumber": otp.to,
        "countryIso": "FR",
        "status": otp.status,
        "cost": CENTS / 100,
        "parts": 1,
        "maxAttempts": otp.max_attempts,
        "attempts": otp.attempts,
        "ttl": otp.ttl,
        "otpCallbackUrl": otp.callback_url,
        "dateCreated": _when(otp.created_at),
        "dateExpires": _when(otp.expires_at),
    }
