"""A simulated ZimSend: phones, messages, webhooks. No clock, no network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from receiver.payloads import envelope, written
from receiver.providers.simulating.world import Delivery, Post, SimulatedWorld, Try, Weather
from receiver.providers.zimsend.samples import sample
from receiver.providers.zimsend.webhook import sign
from receiver.times import MINUTE, SECOND, iso

#: When an event is tried, after it happened (PROVIDER: at once, after 1 minute, after 5 minutes).
TRIES = (0, MINUTE, 5 * MINUTE)
#: Failure codes, as documented.
FAILURES = ("INVALID_NUMBER", "NO_CREDIT", "BLOCKED_NUMBER", "DEVICE_ERROR", "TIMEOUT")
OTP_TRIES = 3
#: The reports that a webhook of the account gets.
REPORTS = ("sms.sent", "sms.delivered", "sms.failed")


@dataclass(slots=True)
class SimulatedMessage:
    """One SMS, as it really is. Times are microseconds."""

    id: str
    number: int
    to: str
    text: str
    device_id: str
    queued_at: int
    priority: Any = 3
    metadata: Any = None
    webhook_url: str | None = None
    status: str = "queued"
    starts_at: int = 0
    sent_at: int | None = None
    delivered_at: int | None = None
    failed_at: int | None = None
    cancelled_at: int | None = None
    error: dict[str, str] | None = None
    #: How often it was put into the queue. What was planned for an earlier time no longer holds.
    round: int = 0


@dataclass(slots=True, kw_only=True)
class WebhookEvent(Delivery):
    """One event for one webhook, with its tries."""

    message_id: str
    secret: bytes
    #: `None` where the message had a `webhook_url` of its own.
    webhook_id: str | None = None

    @property
    def about(self) -> str:
        return self.message_id

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "User-Agent": "ZimSend-Webhook/1.0",
            "X-Webhook-Signature": sign(self.secret, self.body),
        }


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of the account: where to, which events, signed with what."""

    id: str
    url: str
    events: tuple[str, ...]
    secret: bytes


class World(SimulatedWorld):
    """Everything that a simulated ZimSend knows.

    :param began: its first moment.
    :param devices: how many phones; each sends one SMS after the other, 2 to 3 seconds each.
    """

    def __init__(
        self,
        *,
        began: int,
        seed: int = 0,
        devices: int = 1,
        weather: Weather | None = None,
    ) -> None:
        super().__init__(began=began, seed=seed, weather=weather, tries=TRIES)
        self.devices = [f"dev_{number + 1}" for number in range(devices)]
        self.messages: dict[str, SimulatedMessage] = {}
        self.webhooks: dict[str, Webhook] = {}
        #: What each per-message `webhook_url` is signed with.
        self.secret = b""
        self._free_at = dict.fromkeys(self.devices, began)
        self._tests = itertools.count(1)

    def _plan_for(
        self,
        message: SimulatedMessage,
        state: str,
        at: int,
        happen: Callable[[SimulatedMessage], None],
    ) -> None:
        """Plan what becomes of a message, if it is still in this state then."""
        round_ = message.round
        self.plan(
            at,
            lambda: happen(message),
            lambda: message.round == round_ and message.status == state,
        )

    # --- messages

    def send(
        self,
        to: str,
        text: str,
        *,
        device_id: str | None = None,
        metadata: Any = None,
        priority: Any = 3,
        webhook_url: str | None = None,
        scheduled_at: int | None = None,
    ) -> SimulatedMessage:
        """Queue an SMS: on the phone that is free first, if none is named."""
        number = len(self.messages) + 1
        device = device_id or min(self.devices, key=lambda name: (self._free_at[name], name))
        message = SimulatedMessage(
            id=f"msg_{self.seed}_{number}",
            number=number,
            to=to,
            text=text,
            device_id=device,
            queued_at=self.now,
            priority=priority,
            metadata=metadata,
            webhook_url=webhook_url,
        )
        self.messages[message.id] = message
        if scheduled_at is not None and scheduled_at > self.now:
            # Not the phone's yet: others need not wait behind it.
            message.starts_at = scheduled_at
            self._plan_for(message, "queued", scheduled_at, self._enqueue)
        else:
            self._enqueue(message)
        return message

    def campaign(self, count: int, rate: float) -> None:
        """Plan a customer's SMS.

        :param rate: SMS a second.
        """
        self.plan_campaign(
            count,
            rate,
            lambda to, text, number: self.send(
                to, text, metadata={"order_id": f"CMD-{1000 + number}"}
            ),
        )

    def _enqueue(self, message: SimulatedMessage) -> None:
        chance = self.chance("message", message.number, message.round)
        starts_at = max(self._free_at[message.device_id], self.now)
        ends_at = starts_at + int(chance.uniform(2, 3) * SECOND)
        self._free_at[message.device_id] = ends_at
        message.starts_at = starts_at
        fails = chance.random() < self.weather.failed
        code, takes = chance.choice(FAILURES), int(chance.uniform(1, 8) * SECOND)

        def start(message: SimulatedMessage) -> None:
            message.status = "processing"

        def end(message: SimulatedMessage) -> None:
            if fails:
                message.status, message.failed_at = "failed", self.now
                message.error = {"code": code, "message": f"The SMS was not sent: {code}"}
            else:
                message.status, message.sent_at = "sent", self.now
                self._plan_for(message, "sent", self.now + takes, deliver)
            self._report(message)

        def deliver(message: SimulatedMessage) -> None:
            message.status, message.delivered_at = "delivered", self.now
            self._report(message)

        self._plan_for(message, "queued", starts_at, start)
        self._plan_for(message, "processing", ends_at, end)

    def cancel(self, message: SimulatedMessage) -> bool:
        """Take it back, while it is only queued."""
        if message.status != "queued":
            return False
        message.status, message.cancelled_at = "cancelled", self.now
        return True

    def resend(self, message: SimulatedMessage) -> bool:
        """Queue it again, if it has failed."""
        if message.status != "failed":
            return False
        message.status, message.queued_at, message.round = "queued", self.now, message.round + 1
        message.failed_at = message.error = None
        self._enqueue(message)
        return True

    # --- webhooks

    def _report(self, message: SimulatedMessage) -> None:
        event_type = f"sms.{message.status}"
        if message.webhook_url is not None:
            self._emit(event_type, message, message.webhook_url, self.secret)
            return
        for webhook in self.webhooks.values():
            if event_type in webhook.events:
                self._emit(event_type, message, webhook.url, webhook.secret, webhook.id)

    def _emit(
        self,
        event_type: str,
        message: SimulatedMessage,
        url: str,
        secret: bytes,
        webhook_id: str | None = None,
    ) -> None:
        number = len(self.events) + 1
        event_id = f"evt_{self.seed}_{number}"
        body = written(envelope(event_type, report(message), event_id=event_id, now=self.now))
        self.deliver(
            WebhookEvent(
                id=event_id,
                number=number,
                type=event_type,
                message_id=message.id,
                at=self.now,
                url=url,
                secret=secret,
                body=body,
                webhook_id=webhook_id,
            )
        )

    def test(self, webhook: Webhook) -> Post:
        """A test event, to be sent now and only once. It is no part of the truth."""
        number = next(self._tests)
        event_type = webhook.events[0]
        event_id, message_id = (f"{kind}_test_{self.seed}_{number}" for kind in ("evt", "msg"))
        body = sample(
            event_type,
            event_id=event_id,
            message_id=message_id,
            to="+33600000000",
            now=self.now,
            test=True,
        )
        event = WebhookEvent(
            id=event_id,
            number=number,
            type=event_type,
            message_id=message_id,
            at=self.now,
            url=webhook.url,
            secret=webhook.secret,
            body=body,
            webhook_id=webhook.id,
            tries=[Try(self.now)],
            state="test",
        )
        return Post(event, 0, lost=False, answer_lost=False)

    # --- the truth

    def states(self) -> Iterable[str]:
        return (message.status for message in self.messages.values())

    def truth(self) -> Mapping[str, Any]:
        """What really became of every message and every event."""
        return {
            **super().truth(),
            "simulator": "not ZimSend",
            "messages": [view(message) for message in self.messages.values()],
            "events": [
                {
                    "event_id": event.id,
                    "type": event.type,
                    "message_id": event.message_id,
                    **event.told(),
                }
                for event in self.events
            ],
        }


def report(message: SimulatedMessage) -> dict[str, Any]:
    """`data` of a message's event, as documented: a failure has no `sent_at`."""
    data: dict[str, Any] = {
        "message_id": message.id,
        "status": message.status,
        "to": message.to,
        "message": message.text,
        "device_id": message.device_id,
    }
    shown = {"sent": ["sent_at"], "delivered": ["sent_at", "delivered_at"]}
    for name in shown.get(message.status, ["failed_at"]):
        data[name] = iso(getattr(message, name))
    if message.error is not None:
        data["error"] = message.error
    if message.metadata is not None:
        data["metadata"] = message.metadata
    return data


def view(message: SimulatedMessage) -> dict[str, Any]:
    """Everything about a message."""
    times = ("queued_at", "sent_at", "delivered_at", "failed_at", "cancelled_at")
    return {
        "message_id": message.id,
        "status": message.status,
        "to": message.to,
        "message": message.text,
        "priority": message.priority,
        "device_id": message.device_id,
        "metadata": message.metadata,
        "error": message.error,
        **{n: None if (t := getattr(message, n)) is None else iso(t) for n in times},
    }
