"""The account at ZimSend, as reconciliation asks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from receiver.config import Config
from receiver.event import Incoming
from receiver.providers.budget import Budget
from receiver.providers.clock import clock_of
from receiver.providers.contract import History, Part
from receiver.providers.zimsend import facts
from receiver.providers.zimsend.api.answers import Message
from receiver.providers.zimsend.api.client import ZimSend
from receiver.providers.zimsend.budget import Half
from receiver.store import Report, Store
from receiver.times import DAY, MINUTE, SECOND, to_datetime

#: Messages on a page, at most.
_PAGE = 100
HISTORY = History(
    quiet=facts.QUIET,
    back=31 * DAY,  # an SMS can be scheduled 30 days ahead
    at_once=DAY,
    last_state_alone=False,
    longest_wait=10 * MINUTE,
    per_minute=50,
    id_name="message_id",
)


def of_settings(config: Config, store: Store, now: Callable[[], int]) -> Account | None:
    """The settings' account; `None` where its credentials are not set."""
    if config.api_key is None or config.client_id is None:
        return None
    clock = clock_of(config.api_url, now)
    client = ZimSend(config.api_key.decode(), config.client_id.decode(), base_url=config.api_url)
    return Account(client, Half(store, clock), clock, f"ZIMSEND_API_URL is {config.api_url}")


@dataclass(frozen=True)
class Account:
    """See `receiver.providers.contract.Account`."""

    client: ZimSend
    budget: Budget
    now: Callable[[], int]
    address: str = ""
    provider: str = "zimsend"
    title: str = "ZimSend"
    history: History = HISTORY

    def within(self, **bounds: Any) -> Account:
        return dataclasses.replace(self, client=self.client.within(**bounds))

    def ask(self, since: int, until: int | None) -> Iterator[Part]:
        for page in self.client.history_pages(
            limit=_PAGE,
            from_date=to_datetime(since - since % SECOND),
            to_date=None if until is None else to_datetime(until),
        ):
            shown = [Shown(message) for message in page.messages]
            yield Part(shown, len(page.nameless), page.total_items)

    def look(self, own_id: str) -> Shown:
        return Shown(self.client.status(own_id))

    def probe(self) -> None:
        self.client.history(limit=1)


@dataclass(frozen=True)
class Shown:
    """See `receiver.providers.contract.Shown`."""

    message: Message

    @property
    def own_id(self) -> str:
        return self.message.message_id

    @property
    def latest(self) -> int | None:
        return max(facts.moments(self.message).values(), default=None)

    @property
    def whole(self) -> bool:
        return facts.is_whole(self.message)

    @property
    def waits(self) -> bool:
        return self.message.status in ("queued", "processing", "cancelled")

    @property
    def undated(self) -> bool:
        return self.message.status == "failed" and self.message.failed_at is None

    def facts(
        self, known: Sequence[Report], *, now: int, retention: int, text_mode: str
    ) -> list[Incoming]:
        return facts.facts(
            self.message, now=now, retention=retention, text_mode=text_mode, known=known
        )

    def may_be_new(self, known: Sequence[Report], since: int) -> bool:
        return facts.may_be_new(self.message, known, since)
