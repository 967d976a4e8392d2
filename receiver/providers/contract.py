"""What the service asks of a provider: a few functions, and some data.

A provider says who may speak, what was said, what it wants to hear, and how its events are read. It
does no I/O for that, and knows nothing of sockets, Flask, the database or the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from receiver.config import Config
from receiver.event import Incoming, Read, Rejected
from receiver.store.contract import Outcome

Item = Incoming | Rejected


class Parse(Protocol):
    """Make events of the body of an authenticated request, or of one that quarantine kept."""

    def __call__(
        self,
        body: bytes,
        *,
        received_at: int,
        retention: int,
        text_mode: str = "full",
        source: str = "webhook",
    ) -> list[Item]:
        """
        :param received_at: when it was first received; microseconds, as all times.
        :param retention: an event with an older `timestamp` is not let in.
        :param text_mode: what to keep of the SMS text: `full`, `masked` or `none`.
        :param source: see `Incoming.source`.
        :raises Unusable: if the body is of no use as a whole. What is wrong with one of several
            items makes a `Rejected` of that one.
        """


@dataclass(frozen=True)
class Door:
    """How a provider's reports come in.

    :param path: of the requests. Where no header authenticates them, one more part follows, which
        is the secret: it is judged before the body is read, and whoever does not know it is
        answered as on any unknown path.
    :param header: the header that authenticates a request together with its body.
    :param methods: the methods of such requests.
    :param authenticate: whether what a request shows (the header as the server joined it, or the
        last part of its path) is right. In constant time; without a body where there is no header.
    :param answer: the JSON of the 200, from the items and what became of each.
        Raises `Refused` where the answer is another.
    """

    path: str
    header: str | None
    methods: tuple[str, ...]
    authenticate: Callable[[Config, bytes, str | None], bool]
    answer: Callable[[Sequence[Item], Sequence[Outcome]], str]
    #: For trying it out: the headers that a request with this body has at the provider, beside its
    #: content type; and the address below this service's own, the secret in it included.
    headers: Callable[[Config, bytes], Mapping[str, str]]
    address: Callable[[Config], str]
    #: What is most likely wrong with a request that was not authenticated, from the settings, its
    #: body and its headers (names in lower case): a phrase that shows nothing of them.
    likely_cause: Callable[[Config, bytes, Mapping[str, str]], str] = lambda *_: "a wrong secret"


@dataclass(frozen=True)
class Provider:
    """One provider.

    :param name: as in paths, settings and ids (see `receiver.ids`).
    :param title: as people write it.
    :param is_set_up: whether the settings are there without which it does not take part.
    :param door: `None` for one that does not report by itself.
    :param raw: what a handler gets of a stored body as `Event.raw`.
    :param tries: how often it sends a report at most; `None` if nobody knows.
    :param sample: see `receiver.providers.zimsend.samples.sample`.
    :param reports_delivery: whether it ever tells that a message was delivered.
    """

    name: str
    title: str
    is_set_up: Callable[[Config], bool]
    door: Door | None
    parse: Parse
    read: Read
    raw: Callable[[bytes], bytes]
    tries: int | None
    samples: Sequence[str]
    sample: Callable[..., bytes]
    reports_delivery: bool = True
