"""A simulated ZimSend: phones, messages, webhooks. No clock, no network.

Time is an argument and only moves forward. What happens to the n-th message, and to the n-th event,
is drawn from the seed and n alone, so the same seed gives the same world however threads and
answers happen to interleave.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad a world it is. Shares are from 0 to 1.

    :param failed: SMS that fail.
    :param duplicates: events that are sent once more after they were received.
    :param reorder: events whose first try comes up to 20 seconds late.
    :param drop: tries that never arrive.
    :param lost_answers: tries that arrive, and whose answer is lost.
    :param outage: from when to when no try arrives; microseconds after the beginning.
    """

    failed: float = 0.0
    duplicates: float = 0.0
    reorder: float = 0.0
    drop: float = 0.0
    lost_answers: float = 0.0
    outage: tuple[int, int] = (0, 0)


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


@dataclass(slots=True)
class Try:
    """One attempt to deliver an event: when, and what came back (a status, or what went wrong)."""

    at: int
    outcome: str = "on its way"
    #: How long the sender waited for the answer.
    took_ms: int = 0


@dataclass(slots=True)
class WebhookEvent:
    """One event for one webhook, with its tries."""

    id: str
    number: int
    type: str
    message_id: str
    at: int
    url: str
    secret: bytes
    body: bytes
    #: `None` where the message had a `webhook_url` of its own.
    webhook_id: str | None = None
    tries: list[Try] = field(default_factory=list)
    #: `pending`, `received` (answered with 200), or `dropped` after the last try; or `test`.
    state: str = "pending"
    #: It reached the receiver, whether its answer came back or not.
    arrived: bool = False


@dataclass(frozen=True, slots=True)
class Post:
    """A request to be sent now."""

    event: WebhookEvent
    number: int
    #: It does not arrive; `Try.outcome` says so.
    lost: bool
    #: It arrives, and what comes back is not seen.
    answer_lost: bool

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "User-Agent": "ZimSend-Webhook/1.0",
            "X-Webhook-Signature": sign(self.event.secret, self.event.body),
        }


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of the account: where to, which events, signed with what."""

    id: str
    url: str
    events: tuple[str, ...]
    secret: bytes


class World:
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
        self.began = self.now = began
        self.seed = seed
        self.weather = weather or Weather()
        self.devices = [f"dev_{number + 1}" for number in range(devices)]
        self.messages: dict[str, SimulatedMessage] = {}
        self.events: list[WebhookEvent] = []
        self.webhooks: dict[str, Webhook] = {}
        #: Every try that has ended, with its number, in that order.
        self.log: list[tuple[WebhookEvent, int]] = []
        self._posts: list[Post] = []
        #: What each per-message `webhook_url` is signed with.
        self.secret = b""
        self._free_at = dict.fromkeys(self.devices, began)
        #: When, in which order, what, and whether it still holds.
        self._plans: list[tuple[int, int, Callable[[], None], Callable[[], bool]]] = []
        self._order = itertools.count()
        self._tests = itertools.count(1)

    # --- time

    def advance(self, now: int) -> list[Post]:
        """Let time pass, and take the requests that are due."""
        self.pass_time(now)
        posts, self._posts = self._posts, []
        return posts

    def pass_time(self, now: int) -> None:
        """Let time pass; the requests that are due wait to be taken."""
        while self._plans and self._plans[0][0] <= now:
            self.now, _, happen, holds = heapq.heappop(self._plans)
            if holds():
                happen()
        self.now = max(self.now, now)

    @property
    def next_at(self) -> int | None:
        """When something happens next by itself."""
        return self._plans[0][0] if self._plans else None

    @property
    def at_rest(self) -> bool:
        """Every message has come to its end, and every event was received or dropped."""
        return (
            not self._posts
            and not any(holds() for *_, holds in self._plans)
            and all(event.state != "pending" for event in self.events)
        )

    def _plan(
        self, at: int, happen: Callable[[], None], holds: Callable[[], bool] = lambda: True
    ) -> None:
        heapq.heappush(self._plans, (max(at, self.now), next(self._order), happen, holds))

    def _plan_for(
        self,
        message: SimulatedMessage,
        state: str,
        at: int,
        happen: Callable[[SimulatedMessage], None],
    ) -> None:
        """Plan what becomes of a message, if it is still in this state then."""
        round_ = message.round
        self._plan(
            at,
            lambda: happen(message),
            lambda: message.round == round_ and message.status == state,
        )

    def chance(self, *about: object) -> random.Random:
        """The randomness of one thing, whatever happened before it."""
        return random.Random("/".join(map(str, (self.seed, *about))))

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

        def one(number: int) -> Callable[[], None]:
            chance = self.chance("campaign", number)

            def happen() -> None:
                self.send(
                    f"+336{chance.randrange(10**8):08}",
                    f"Votre commande CMD-{1000 + number} est prête. Code {chance.randrange(10**6)}",
                    metadata={"order_id": f"CMD-{1000 + number}"},
                )

            return happen

        for number in range(count):
            self._plan(self.began + int(number / rate * SECOND), one(number))

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
        envelope = {
            "event": event_type,
            "event_id": event_id,
            "timestamp": iso(self.now),
            "data": report(message),
        }
        # Half a surrogate pair is escaped, as JavaScript writes it.
        body = json.dumps(envelope, ensure_ascii=False).encode("utf-8", "backslashreplace")
        event = WebhookEvent(
            event_id, number, event_type, message.id, self.now, url, secret, body, webhook_id
        )
        self.events.append(event)
        chance = self.chance("event", number)
        late = chance.random() < self.weather.reorder
        self._plan_try(event, self.now + (int(chance.uniform(1, 20) * SECOND) if late else 0))

    def _plan_try(self, event: WebhookEvent, at: int) -> None:
        self._plan(at, lambda: self._try(event))

    def _try(self, event: WebhookEvent) -> None:
        number = len(event.tries)
        chance = self.chance("try", event.number, number)
        begins, ends = (self.began + moment for moment in self.weather.outage)
        lost = chance.random() < self.weather.drop or begins <= self.now < ends
        answer_lost = chance.random() < self.weather.lost_answers
        event.tries.append(Try(self.now))
        self._posts.append(Post(event, number, lost, answer_lost))

    def test(self, webhook: Webhook) -> Post:
        """A test event, to be sent now and only once. It is no part of the truth."""
        number = next(self._tests)
        event_type = webhook.events[0]
        event_id, message_id = (f"{kind}_test_{self.seed}_{number}" for kind in ("evt", "msg"))
        body = sample(
            event_type, event_id=event_id, message_id=message_id, to="+33600000000", now=self.now
        )
        event = WebhookEvent(
            event_id,
            number,
            event_type,
            message_id,
            self.now,
            webhook.url,
            webhook.secret,
            body,
            webhook.id,
            [Try(self.now)],
            "test",
        )
        return Post(event, 0, lost=False, answer_lost=False)

    def answered(self, post: Post, outcome: str, took_ms: int = 0) -> None:
        """Tell what came back of a request.

        :param outcome: the status, or a word for what went wrong; only `200` is a success.
        :param took_ms: how long the sender waited for it.
        """
        event, number = post.event, post.number
        if post.lost:
            outcome = "lost on the way"
        else:
            event.arrived = event.arrived or outcome == "200"
            if post.answer_lost:
                outcome = f"{outcome}, but the answer was lost"
        event.tries[number].outcome, event.tries[number].took_ms = outcome, took_ms
        self.log.append((event, number))
        if event.state != "pending":
            return  # a duplicate, or a test
        if outcome == "200":
            event.state = "received"
            if self.chance("duplicate", event.number).random() < self.weather.duplicates:
                self._plan_try(event, self.now + SECOND)
        elif number + 1 < len(TRIES):
            self._plan_try(event, event.tries[0].at + TRIES[number + 1])
        else:
            event.state = "dropped"

    # --- the truth

    def truth(self) -> Mapping[str, Any]:
        """What really became of every message and every event."""
        return {
            "simulator": "not ZimSend",
            "seed": self.seed,
            "now": iso(self.now),
            "at_rest": self.at_rest,
            "messages": [view(message) for message in self.messages.values()],
            "events": [
                {
                    "event_id": event.id,
                    "type": event.type,
                    "message_id": event.message_id,
                    "at": iso(event.at),
                    "state": event.state,
                    "arrived": event.arrived,
                    "tries": [{"at": iso(t.at), "outcome": t.outcome} for t in event.tries],
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
