"""A client for what this service needs of sipgate's API.

    with Sipgate(token_id, token) as sipgate:
        sipgate.send("+4915799000002", "Guten Tag")
        entries = list(sipgate.entries(connection_ids=("s0",), since=yesterday))

Errors are named by what the caller can do about them (`receiver.providers.errors`).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, TypeVar, Unpack
from urllib.parse import urlencode

import httpx

from receiver.providers import exchange
from receiver.providers.budget import Budget
from receiver.providers.errors import NotUnderstood, ProviderError
from receiver.providers.exchange import Answer, Bounds, Client, Exchange
from receiver.providers.reading import Fields
from receiver.providers.sipgate.api import answers, errors
from receiver.providers.sipgate.api.answers import (
    Account,
    CallerId,
    Extension,
    Page,
    User,
)

BASE_URL = "https://api.sipgate.com/v2"
#: Entries on a page of the history, at most; sipgate refuses more.
MOST_ENTRIES = 1_000
#: So many entries of a page are read again with the next one: entries that go away meanwhile move
#: the others up.
OVERLAP = 20
#: How often a history that moves is read from its beginning, at most.
_READINGS = 3

T = TypeVar("T")


class Filter(TypedDict, total=False):
    """Which entries are meant; each one that is given must hold."""

    #: Aware; by an entry's `created`.
    since: datetime | None
    until: datetime | None
    connection_ids: Sequence[str]
    types: Sequence[str]
    directions: Sequence[str]
    #: Only what is archived, or only what is not.
    archived: bool
    phonenumber: str | None


class Sipgate(Client):
    """sipgate's API for one account. Threads may share one.

    Calls that only read are repeated after errors on the way, 5xx and 429. Sending is repeated only
    if the request surely never left.

    All calls raise `ProviderError` and its kinds, and `ValueError` or `TypeError` for arguments
    that no request can hold.

    :param token_id: of a personal access token, like `token-ABC123`.
    :param sms_id: the extension that SMS go out by where a call does not say.

    The others: see `receiver.providers.exchange`.

    :raises ValueError: if one of them is of no use.
    """

    def __init__(
        self,
        token_id: str,
        token: str,
        *,
        sms_id: str = "s0",
        base_url: str = BASE_URL,
        timeout: float = 10.0,
        tries: int = 4,
        patience: float = 30.0,
        budget: Budget | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        exchange.header(token_id, "the token's id")
        exchange.header(token, "the token")
        if ":" in token_id:
            raise ValueError("the token's id has no colon")
        basic = base64.b64encode(f"{token_id}:{token}".encode()).decode()
        self.sms_id = sms_id
        self._hidden = (basic, token)
        bounds = Bounds(timeout, tries, patience, budget)
        credentials = {"Authorization": f"Basic {basic}"}
        self._exchange = Exchange("sipgate", credentials, base_url, bounds, sleep, clock)

    # --- sending

    def send(
        self,
        to: str,
        text: str,
        *,
        sms_id: str | None = None,
        send_at: int | None = None,
    ) -> None:
        """Send an SMS. sipgate gives it no id: it can be found in the history.

        :param to: E.164.
        :param sms_id: the extension it goes out by.
        :param send_at: when it is to go out, at most 30 days ahead; Unix seconds.
        """
        asked = {
            "smsId": self.sms_id if sms_id is None else sms_id,
            "recipient": to,
            "message": text,
            "sendAt": send_at,
        }
        # The success code is not documented, nor is a body.
        self._call("POST", "/sessions/sms", None, asked=asked)

    # --- who and what there is

    def userinfo(self) -> User:
        """Whose token it is."""
        return self._call("GET", "/authorization/userinfo", answers.user)

    def extensions(self, user_id: str) -> tuple[Extension, ...]:
        """A user's SMS extensions."""
        return self._call("GET", f"/{exchange.segment(user_id)}/sms", answers.extensions)

    def caller_ids(self, user_id: str, sms_id: str) -> tuple[CallerId, ...]:
        """The numbers that SMS of an extension can be from."""
        path = f"/{exchange.segment(user_id)}/sms/{exchange.segment(sms_id)}/callerids"
        return self._call("GET", path, answers.caller_ids)

    def account(self) -> Account:
        """The account, with how long its history is kept."""
        return self._call("GET", "/account", answers.account)

    # --- the history

    def history(
        self, *, offset: int = 0, limit: int = MOST_ENTRIES, **which: Unpack[Filter]
    ) -> Page:
        """One part of the history. By default SMS that went out and are not archived.

        :param limit: entries at most.
        """
        query = [
            *_each("types", which.get("types", ("SMS",))),
            *_each("directions", which.get("directions", ("OUTGOING",))),
            *_each("connectionIds", which.get("connection_ids", ())),
            ("archived", "true" if which.get("archived") else "false"),
            ("from", exchange.time_text(which.get("since"), "since")),
            ("to", exchange.time_text(which.get("until"), "until")),
            ("phonenumber", which.get("phonenumber")),
            ("offset", offset),
            ("limit", limit),
        ]
        return self._call("GET", "/history", answers.page, query=query)

    def entries(self, *, limit: int = MOST_ENTRIES, **which: Unpack[Filter]) -> Iterator[Fields]:
        """All entries that are meant, archived and not, each once; without `archived` both.

        :param limit: entries on a page.
        :raises NotUnderstood: if the history moves too much to be read as a whole.
        """
        seen: set[str] = set()
        # What is archived meanwhile is seen twice, if this is the order.
        wanted = (which["archived"],) if "archived" in which else (False, True)
        for archived in wanted:
            for item in self._read_all(limit, {**which, "archived": archived}):
                if item["id"] not in seen:
                    seen.add(item["id"])
                    yield item

    def entry(self, entry_id: str) -> Fields:
        """One entry of the history.

        :raises NotFound: if there is none (any more).
        """
        return self._call("GET", f"/history/{exchange.segment(entry_id)}", answers.entry)

    def _read_all(self, limit: int, which: Filter) -> Iterator[Fields]:
        for _ in range(_READINGS):
            if (yield from self._read_through(limit, which)):
                return
        raise NotUnderstood("the history changes faster than it can be read")

    def _read_through(self, limit: int, which: Filter) -> Generator[Fields, None, bool]:
        """Read from the beginning to the end.

        :returns: false if entries may have slipped past.
        """
        offset, overlap, seen = 0, 0, set[str]()
        while True:
            page = self.history(offset=offset, limit=limit, **which)
            own = {item["id"] for item in page.items}
            if overlap and seen.isdisjoint(own):
                return False
            yield from page.items
            is_new = not own <= seen
            seen |= own
            ends_at = offset + page.count
            if not page.count or (not is_new if page.total is None else ends_at >= page.total):
                return True
            overlap = min(OVERLAP, page.count // 2)
            offset = ends_at - overlap

    # --- how a call is made

    def _call(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T] | None,
        *,
        asked: Mapping[str, Any] | None = None,
        query: Sequence[tuple[str, Any]] = (),
    ) -> T:
        """Make a call and understand its answer.

        :param read: makes a result of the JSON; raises `Unusable`. `None`: there is no result.
        :param asked: the body's fields; those that are `None` are left out. Likewise `query`.
        """
        body, headers = None, httpx.Headers()
        if asked is not None:
            told = {name: value for name, value in asked.items() if value is not None}
            body = json.dumps(told, allow_nan=False).encode()
            headers["Content-Type"] = "application/json"
        pairs = [(name, value) for name, value in query if value is not None]

        def refusal(answer: Answer, document: Any) -> ProviderError | None:
            return errors.refusal(answer, document, (*self._exchange.secrets, *self._hidden))

        return self._exchange.perform(
            method,
            path,
            urlencode(pairs),
            body,
            headers,
            lambda answer: exchange.understand(answer, read, refusal),
            repeatable=method == "GET",
        )


def _each(name: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """A parameter with several values is repeated; sipgate does not split it at commas."""
    return [(name, value) for value in values]
