"""The account at SMS.CX, as reconciliation asks it: by its reports.

They are asked for by the day on which a message was begun, so each time all of the day comes, and
one more on each side (see `reports.days`). What has not changed since is passed over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from receiver import times
from receiver.config import Config
from receiver.event import Incoming
from receiver.providers.budget import Budget, Tokens
from receiver.providers.clock import clock_of
from receiver.providers.contract import History, Part
from receiver.providers.errors import NotUnderstood
from receiver.providers.smscx import reports, webhook
from receiver.providers.smscx.api.answers import Message, Page
from receiver.providers.smscx.api.client import MOST_ROWS, SmsCx
from receiver.providers.smscx.api.errors import LONGEST_RESET
from receiver.store import Report, Store
from receiver.times import DAY, MINUTE, SECOND

HISTORY = History(
    quiet=reports.QUIET,
    back=31 * DAY,  # nobody says how far ahead an SMS can be scheduled
    at_once=7 * DAY,  # of a day alone, three would come each time
    last_state_alone=True,
    longest_wait=int(LONGEST_RESET) * SECOND,
    per_minute=50,
    id_name="msgId",
)
_AT_ONCE = 15
#: SMS.CX does not publish how many it allows: so few in a minute, with those at once.
_INTERVAL = MINUTE // (HISTORY.per_minute - _AT_ONCE)


def of_settings(config: Config, store: Store, now: Callable[[], int]) -> Account | None:
    """The settings' account; `None` where its credentials are not set."""
    if config.smscx_api_key is None:
        return None
    clock = clock_of(config.smscx_api_url, now)
    client = SmsCx(config.smscx_api_key.decode(), base_url=config.smscx_api_url, now=now)
    budget = tokens(store, clock)
    return Account(client, budget, clock, f"SMSCX_API_URL is {config.smscx_api_url}")


def tokens(store: Store, now: Callable[[], int]) -> Budget:
    """The account's budget, counted in the store for all processes."""
    return Tokens(store, "tokens:smscx", now, interval=_INTERVAL, at_once=_AT_ONCE)


@dataclass(frozen=True)
class Account:
    """See `receiver.providers.contract.Account`."""

    client: SmsCx
    budget: Budget
    now: Callable[[], int]
    address: str = ""
    provider: str = webhook.NAME
    title: str = "SMS.CX"
    history: History = HISTORY

    def within(self, **bounds: Any) -> Account:
        return dataclasses.replace(self, client=self.client.within(**bounds))

    def ask(self, since: int, until: int | None) -> Iterator[Part]:
        now = self.now()
        first, last = reports.days(since, now if until is None else min(until, now))
        for page in self.client.report_pages(start_date=first, end_date=last, channel="sms"):
            _check_that_it_ends(page)
            shown = (Shown(message) for message in page.messages if is_sms(message))
            changed = [each for each in shown if each.latest is None or each.latest >= since]
            yield Part(changed, len(page.nameless))

    def look(self, own_id: str) -> Shown:
        return Shown(self.client.report(own_id))

    def probe(self) -> None:
        day = times.to_datetime(self.now()).date()
        self.client.reports(start_date=day, end_date=day, limit=1)


def is_sms(message: Message) -> bool:
    """Whether it is one, whatever a filter has let through."""
    return message.raw.get("channel") in ("sms", None)


def _check_that_it_ends(page: Page) -> None:
    """A full page that says nothing of what is behind it is not the last one.

    :raises NotUnderstood: then what lies behind it would never be seen.
    """
    paging = page.raw.get("paging")
    if len(page.messages) >= MOST_ROWS and not (isinstance(paging, dict) and "next" in paging):
        raise NotUnderstood("the reports do not say whether there are more", raw=page.raw)


@dataclass(frozen=True)
class Shown:
    """See `receiver.providers.contract.Shown`. A row has all that SMS.CX tells of a message."""

    message: Message
    whole: bool = True

    @property
    def own_id(self) -> str:
        return self.message.msg_id

    @property
    def latest(self) -> int | None:
        return reports.latest(self.message)

    @property
    def waits(self) -> bool:
        return webhook.STATES.get(webhook.status_of(self.message.raw)) == "queued"

    @property
    def undated(self) -> bool:
        state = webhook.STATES.get(webhook.status_of(self.message.raw))
        return state == "failed" and self.message.updated_at is None

    def facts(
        self, known: Sequence[Report], *, now: int, retention: int, text_mode: str
    ) -> list[Incoming]:
        return reports.facts(
            self.message, now=now, retention=retention, text_mode=text_mode, known=known
        )

    def may_be_new(self, known: Sequence[Report], since: int) -> bool:
        return False
