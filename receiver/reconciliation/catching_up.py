"""Reading an account's history beside what the store knows, and learning what is missing there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from receiver import ids, mirror
from receiver.event import Incoming, clean_id
from receiver.forgetting import FORGOTTEN_ID
from receiver.mirror import PENDING, Search
from receiver.providers.contract import Account, Shown
from receiver.providers.errors import (
    NotFound,
    NotPossible,
    NotUnderstood,
    RequestRefused,
    Unavailable,
)
from receiver.reconciliation.planning import Window
from receiver.store import Report, Store
from receiver.times import DAY, HOUR, MINUTE
from receiver.upkeep import patiently

log = logging.getLogger(__name__)

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
#: After so long the account may be asked again for a message that it did not have.
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
    """One pass. Messages have the provider's own ids here.

    :param learn: stores a group of events in one transaction.
    :param failed: messages first seen as failed, and when that was; changed here.
    :param asked: messages that may not be asked for before a time; changed here.
    :param by_hand: somebody waits for it: what can be told now is not left to the next pass.
    :param progress: told after each page.
    """

    def __init__(
        self,
        account: Account,
        store: Store,
        learn: Callable[[Sequence[Incoming]], object],
        *,
        retention: int,
        text_mode: str,
        failed: dict[str, int],
        asked: dict[str, int],
        by_hand: bool,
        progress: Callable[[Found], None],
    ) -> None:
        self._account = account
        self._quiet = account.history.quiet
        self._store = store
        self._learn = learn
        self._now = account.now
        self._retention = retention
        self._text_mode = text_mode
        self._failed = failed
        self._asked = asked
        self._by_hand = by_hand
        self._progress = progress
        #: Messages of the history of which it has not told enough; and the ids of those that wait.
        self._unclear: dict[str, Shown] = {}
        self._unknown: list[str] = []
        self._seen: set[str] = set()
        self.found = Found()

    def read(self, window: Window) -> int:
        """Go through a part of the history; returns the number of pages.

        While it is read, messages that are sent push others on to the next page, which makes
        repeats. One that leaves the part that is read would pull others over to a page that was
        read before; then fewer come than there should be, and all is read once more.
        """
        pages = 0
        seen: set[str] = set()
        for _ in range(2):
            expected = nameless = 0
            for part in self._account.ask(*window):
                pages += 1
                new = {shown.own_id: shown for shown in part.shown if shown.own_id not in seen}
                seen.update(new)
                self._take(list(new.values()), window.since)
                nameless += part.nameless
                expected = expected or part.total or 0
                self._progress(self.found)
            if len(seen) + nameless >= expected:
                break
        if nameless:
            log.warning(
                "%s's history has %d messages without a `%s`",
                self._account.title,
                nameless,
                self._account.history.id_name,
            )
        self.found.messages += len(seen)
        self._seen |= seen
        return pages

    def clear_up(self) -> None:
        """Ask for the messages of which the history has not told enough."""
        for own_id, shown in self._unclear.items():
            self._ask(own_id, shown)
            self._progress(self.found)
        self._unclear.clear()

    def look_up(self) -> None:
        """Ask for messages that have stayed unfinished past their time, and for failures that were
        seen a while ago."""
        now = self._now()
        for own_id, first in list(self._failed.items()):
            if first <= now - self._quiet or (self._by_hand and own_id not in self._seen):
                self._ask(own_id)
        may_ask = now + _SOON if self._by_hand else now
        unfinished = [
            (own_id, next_at)
            for own_id, next_at in (*self._not_known(now), *self._unfinished(now))
            if self._asked.get(own_id, 0) <= may_ask
        ]
        # What is due goes first.
        unfinished.sort(key=lambda item: max(self._asked.get(item[0], 0), now))
        for own_id, next_at in unfinished[:MOST_ASKED]:
            self._asked[own_id] = next_at
            self._ask(own_id)
        remembered = sorted(self._asked.items(), key=lambda item: item[1])[-_MOST_REMEMBERED:]
        self._asked.clear()
        self._asked.update((own_id, next_at) for own_id, next_at in remembered if next_at > now)

    def _not_known(self, now: int) -> list[tuple[str, int]]:
        unknown, self._unknown = self._unknown[-_MOST_UNKNOWN:], []
        return [(own_id, now + HOUR) for own_id in unknown]

    def _unfinished(self, now: int) -> list[tuple[str, int]]:
        """The account's messages past their time, newest first, and when each may be asked for
        again."""
        name, before = self._account.provider, now - PAST_ITS_TIME
        search = (Search(status=state, until=before, provider=name) for state in PENDING)
        rows = [row for one in search for row in self._store.history(one, 0, _LOOKED_THROUGH)[1]]
        latest = {ids.split(key)[1]: mirror.latest_time(row) for key, row in rows}
        return [
            (own_id, now + max(HOUR, (now - at) // 2))
            for own_id, at in sorted(latest.items(), key=lambda item: -item[1])
            if at <= before
            and own_id not in self._seen
            and not own_id.startswith(FORGOTTEN_ID)  # whose id only the provider knows
        ]

    # --- messages

    def _take(self, found: Sequence[Shown], since: int) -> None:
        known = self._known(found)
        new: list[Incoming] = []
        for shown in found:
            new += self._consider(shown, known.get(self._key(shown), ()), since)
        self._store_all(new)

    def _consider(self, shown: Shown, known: Sequence[Report], since: int) -> Sequence[Incoming]:
        """What is to be learnt of a message in the history; it is asked for if that is not enough.

        :param since: where the part of the history begins.
        """
        now = self._now()
        if (shown.latest or 0) > now - self._quiet:
            self.found.waiting += bool(self._missing(shown, known, now + self._quiet))
            return ()
        new = self._missing(shown, known, now)
        if not new and (shown.whole or not shown.may_be_new(known, since)):
            self._failed.pop(shown.own_id, None)  # its report has come
            return ()
        # By hand it is asked for in any case: a row without times says too little of its age.
        asks = self._by_hand and not shown.whole
        if not asks and self._may_have_failed_just_now(shown, known, now):
            self.found.waiting += 1
            return ()
        if shown.whole:
            self._failed.pop(shown.own_id, None)
            return new
        if shown.waits:
            self._unknown.append(shown.own_id)
            return ()
        self._unclear[shown.own_id] = shown
        return ()

    def _may_have_failed_just_now(self, shown: Shown, known: Sequence[Report], now: int) -> bool:
        if not shown.undated:
            return False
        if self._by_hand:
            told = [report.reported_at for report in known if report.reported_at is not None]
            if shown.latest is not None:
                told.append(shown.latest)
            if max(told, default=now) <= now - LONG_AGO:
                return False
        # No later than now, whatever a clock that was wrong has written.
        first = min(self._failed.get(shown.own_id, now), now)
        self._failed[shown.own_id] = first
        return first > now - self._quiet

    def _ask(self, own_id: str, before: Shown | None = None) -> None:
        """Ask for one message, and learn what its answer tells.

        :param before: what the history tells of it, which must do if there is no answer.
        """
        shown: Shown | None
        try:
            shown = self._account.look(own_id)
        except (NotFound, NotPossible, RequestRefused, ValueError):
            self._asked[own_id] = self._now() + _NOT_THERE
            self._failed.pop(own_id, None)
            shown = before
        except (Unavailable, NotUnderstood):
            # If it is this message only, the others must not wait for it for ever.
            self._account.probe()
            shown = before
        if shown is None:
            return
        now, latest = self._now(), shown.latest or 0
        if latest > now - self._quiet:  # nothing to learn yet
            self._asked[own_id] = latest + self._quiet
        known = self._known([shown]).get(self._key(shown), ())
        new = self._missing(shown, known, now)
        if new and self._may_have_failed_just_now(shown, known, now):
            self.found.waiting += 1
        elif new or shown is not before:
            self._failed.pop(own_id, None)
            self._store_all(new)

    def _key(self, shown: Shown) -> str:
        return ids.key(self._account.provider, clean_id(shown.own_id))

    def _known(self, found: Sequence[Shown]) -> Mapping[str, Sequence[Report]]:
        return self._store.reports({self._key(shown) for shown in found})

    def _missing(self, shown: Shown, known: Sequence[Report], now: int) -> list[Incoming]:
        return shown.facts(known, now=now, retention=self._retention, text_mode=self._text_mode)

    def _store_all(self, items: Sequence[Incoming]) -> None:
        for start in range(0, len(items), _GROUP):
            group = items[start : start + _GROUP]
            patiently(partial(self._learn, group))
            for item in group:
                report = Report(item.type, item.reported_at, item.has_error, item.source)
                self.found.learnt.append((item.message_id or "", report))
