"""Reading ZimSend's history beside what the store knows, and learning what is missing there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from receiver import mirror
from receiver.event import Incoming, clean_id
from receiver.mirror import PENDING, Search
from receiver.providers.zimsend.api.answers import Message
from receiver.providers.zimsend.api.client import ZimSend
from receiver.providers.zimsend.api.errors import (
    NotFound,
    NotPossible,
    NotUnderstood,
    RequestRefused,
    Unavailable,
)
from receiver.providers.zimsend.facts import QUIET, facts, is_whole, may_be_new, moments
from receiver.store import Report, Store
from receiver.times import DAY, HOUR, MINUTE, SECOND, to_datetime
from receiver.upkeep import patiently

log = logging.getLogger(__name__)

_PAGE = 100
#: Events that are stored in one transaction: webhooks write through the same lock.
_GROUP = 64
#: A message of which nothing has been heard for so long is past its time.
PAST_ITS_TIME = 15 * MINUTE
#: Unfinished messages that are asked for in one pass; and those of them that nothing is known of.
MOST_ASKED = 100
_MOST_UNKNOWN = 20
#: Unfinished messages that are looked through for those, of each state the newest.
_LOOKED_THROUGH = 1_000
#: By hand: what is known of a message is older than this, so its failure is not of this moment.
LONG_AGO = HOUR
#: By hand: what may be asked for again within this is asked for now.
_SOON = DAY
#: After so long ZimSend may be asked again for a message that it did not have.
_NOT_THERE = 7 * DAY
_MOST_REMEMBERED = 5_000


@dataclass(slots=True)
class Found:
    """How far it has come."""

    #: Messages seen in the history.
    messages: int = 0
    learnt: list[tuple[str, Report]] = field(default_factory=list)
    #: Messages that changed so lately that the webhook may be on its way.
    waiting: int = 0


class CatchingUp:
    """One pass.

    :param learn: stores a group of events in one transaction.
    :param failed: messages first seen as failed, and when that was; changed here.
    :param asked: messages whose status may not be asked for before a time; changed here.
    :param by_hand: somebody waits for it: what can be told now is not left to the next pass.
    :param progress: told after each page.
    """

    def __init__(
        self,
        zimsend: ZimSend,
        store: Store,
        learn: Callable[[Sequence[Incoming]], object],
        now: Callable[[], int],
        *,
        retention: int,
        text_mode: str,
        failed: dict[str, int],
        asked: dict[str, int],
        by_hand: bool,
        progress: Callable[[Found], None],
    ) -> None:
        self._zimsend = zimsend
        self._store = store
        self._learn = learn
        self._now = now
        self._retention = retention
        self._text_mode = text_mode
        self._failed = failed
        self._asked = asked
        self._by_hand = by_hand
        self._progress = progress
        #: Messages of the history of which it has not told enough; and of those that are in the
        #: queue, or were taken out of it, their ids: ZimSend never reports these by itself.
        self._unclear: dict[str, Message] = {}
        self._unknown: list[str] = []
        self._seen: set[str] = set()
        self.found = Found()

    def read(self, since: int, until: int | None = None) -> int:
        """Go through the history; returns the number of pages.

        While it is read, messages that are sent push others on to the next page, which makes
        repeats. One that leaves the part that is read would pull others over to a page that was
        read before; then fewer come than there should be, and all is read once more.
        """
        pages = 0
        seen: set[str] = set()
        for _ in range(2):
            expected = nameless = 0
            for page in self._zimsend.history_pages(
                limit=_PAGE,
                from_date=to_datetime(since - since % SECOND),
                to_date=None if until is None else to_datetime(until),
            ):
                pages += 1
                new = [m for m in page.messages if m.message_id not in seen]
                seen.update(message.message_id for message in new)
                self._take(new, since)
                nameless += len(page.nameless)
                expected = expected or page.total_items or 0
                self._progress(self.found)
            if len(seen) + nameless >= expected:
                break
        if nameless:
            log.warning("ZimSend's history has %d messages without a `message_id`", nameless)
        self.found.messages += len(seen)
        self._seen |= seen
        return pages

    def clear_up(self) -> None:
        """Ask for the messages of which the history has not told enough."""
        for message in self._unclear.values():
            self._ask(message.message_id, message)
            self._progress(self.found)
        self._unclear.clear()

    def look_up(self) -> None:
        """Ask for messages that have stayed unfinished past their time, and for failures that were
        seen a while ago."""
        now = self._now()
        for message_id, first in list(self._failed.items()):
            if first <= now - QUIET or (self._by_hand and message_id not in self._seen):
                self._ask(message_id)
        may_ask = now + _SOON if self._by_hand else now
        unfinished = [
            (message_id, next_at)
            for message_id, next_at in (*self._not_known(now), *self._unfinished(now))
            if self._asked.get(message_id, 0) <= may_ask
        ]
        # What is due goes first.
        unfinished.sort(key=lambda item: max(self._asked.get(item[0], 0), now))
        for message_id, next_at in unfinished[:MOST_ASKED]:
            self._asked[message_id] = next_at
            self._ask(message_id)
        remembered = sorted(self._asked.items(), key=lambda item: item[1])[-_MOST_REMEMBERED:]
        self._asked.clear()
        self._asked.update((name, next_at) for name, next_at in remembered if next_at > now)

    def _not_known(self, now: int) -> list[tuple[str, int]]:
        unknown, self._unknown = self._unknown[-_MOST_UNKNOWN:], []
        return [(message_id, now + HOUR) for message_id in unknown]

    def _unfinished(self, now: int) -> list[tuple[str, int]]:
        """Messages past their time, newest first, and when each may be asked for again."""
        search = (Search(status=state, until=now - PAST_ITS_TIME) for state in PENDING)
        rows = [row for one in search for row in self._store.history(one, 0, _LOOKED_THROUGH)[1]]
        latest = {message_id: mirror.latest_time(row) for message_id, row in rows}
        return [
            (message_id, now + max(HOUR, (now - at) // 2))
            for message_id, at in sorted(latest.items(), key=lambda item: -item[1])
            if at <= now - PAST_ITS_TIME and message_id not in self._seen
        ]

    # --- messages

    def _take(self, messages: Sequence[Message], since: int) -> None:
        known = self._known(messages)
        new: list[Incoming] = []
        for message in messages:
            new += self._consider(message, known.get(clean_id(message.message_id), ()), since)
        self._store_all(new)

    def _consider(
        self, message: Message, known: Sequence[Report], since: int
    ) -> Sequence[Incoming]:
        """What is to be learnt of a message in the history; it is asked for if that is not enough.

        :param since: where the part of the history begins.
        """
        now = self._now()
        if max(moments(message).values(), default=0) > now - QUIET:
            self.found.waiting += bool(self._missing(message, known, now + QUIET))
            return ()
        new = self._missing(message, known, now)
        whole = is_whole(message)
        if not new and (whole or not may_be_new(message, known, since)):
            self._failed.pop(message.message_id, None)  # its webhook has come
            return ()
        # By hand it is asked for in any case: a row without times says too little of its age.
        asks = self._by_hand and not whole
        if not asks and self._may_have_failed_just_now(message, known, now):
            self.found.waiting += 1
            return ()
        if whole:
            self._failed.pop(message.message_id, None)
            return new
        if message.status in ("queued", "processing", "cancelled"):
            self._unknown.append(message.message_id)
            return ()
        self._unclear[message.message_id] = message
        return ()

    def _may_have_failed_just_now(
        self, message: Message, known: Sequence[Report], now: int
    ) -> bool:
        if message.status != "failed" or message.failed_at is not None:
            return False
        if self._by_hand:
            told = [report.reported_at for report in known if report.reported_at is not None]
            if max((*moments(message).values(), *told), default=now) <= now - LONG_AGO:
                return False
        # No later than now, whatever a clock that was wrong has written.
        first = min(self._failed.get(message.message_id, now), now)
        self._failed[message.message_id] = first
        return first > now - QUIET

    def _ask(self, message_id: str, shown: Message | None = None) -> None:
        """Ask for one message, and learn what its answer tells.

        :param shown: what the history tells of it, which must do if there is no answer.
        """
        message: Message | None
        try:
            message = self._zimsend.status(message_id)
        except (NotFound, NotPossible, RequestRefused, ValueError):
            self._asked[message_id] = self._now() + _NOT_THERE
            self._failed.pop(message_id, None)
            message = shown
        except (Unavailable, NotUnderstood):
            # If it is this message only, the others must not wait for it for ever.
            self._zimsend.history(limit=1)
            message = shown
        if message is None:
            return
        now = self._now()
        latest = max(moments(message).values(), default=0)
        if latest > now - QUIET:  # nothing to learn yet
            self._asked[message_id] = latest + QUIET
        known = self._known([message]).get(clean_id(message.message_id), ())
        new = self._missing(message, known, now)
        if new and self._may_have_failed_just_now(message, known, now):
            self.found.waiting += 1
        elif new or message is not shown:
            self._failed.pop(message_id, None)
            self._store_all(new)

    def _known(self, messages: Sequence[Message]) -> Mapping[str, Sequence[Report]]:
        return self._store.reports({clean_id(message.message_id) for message in messages})

    def _missing(self, message: Message, known: Sequence[Report], now: int) -> list[Incoming]:
        return facts(
            message,
            now=now,
            retention=self._retention,
            text_mode=self._text_mode,
            known=known,
        )

    def _store_all(self, items: Sequence[Incoming]) -> None:
        for start in range(0, len(items), _GROUP):
            group = items[start : start + _GROUP]
            patiently(partial(self._learn, group))
            for item in group:
                report = Report(item.type, item.reported_at, item.has_error, item.source)
                self.found.learnt.append((item.message_id or "", report))
