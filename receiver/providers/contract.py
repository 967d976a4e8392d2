"""What the service asks of a provider: a few functions, and some data.

A provider says who may speak, what was said, what it wants to hear, and how its events are read. It
does no I/O for that, and knows nothing of sockets, Flask, the database or the clock. Who can be
sent through also has `Sending`, whose calls do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from receiver.config import Config
from receiver.errors import Unusable
from receiver.event import Incoming, Read, Rejected
from receiver.providers.exchange import Answer
from receiver.providers.requests import Fields, NotTaken
from receiver.store import Store
from receiver.store.contract import Outcome
from receiver.strict_json import read_json

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
class Asked:
    """A request to `/v1` that a provider is asked to carry out. It is in ZimSend's shape.

    :param body: as it came.
    :param own_id: of the message that it is about, as the provider knows it; empty without one.
    :param headers: the caller's, names in lower case.
    :param query: encoded, without `?`.
    :param tells_provider: whether an answer says who took it, also one that is passed back.
    """

    body: bytes = field(repr=False)
    own_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: str = ""
    tells_provider: bool = False

    @cached_property
    def fields(self) -> Fields:
        """The body's JSON object.

        :raises NotTaken: if it is none.
        """
        try:
            found = read_json(self.body)
        except Unusable as error:
            raise NotTaken(400, "INVALID_REQUEST", error.reason) from None
        if not isinstance(found, dict):
            raise NotTaken(400, "INVALID_REQUEST", "The body must be a JSON object")
        return found


@dataclass(frozen=True)
class Told:
    """What came of it.

    :param answer: an object; the provider's own answer, as it came; or why it was not taken.
    :param leaves_it: whether surely nothing was sent, and another provider may be asked instead.
    :param events: makes what the mirror learns of it, before anybody is answered.
    """

    answer: Fields | Answer | NotTaken
    leaves_it: bool = False
    events: Callable[[], Iterable[Incoming]] = tuple


@dataclass(frozen=True)
class Sending:
    """How SMS are sent through a provider.

    :param is_set_up: whether all of its settings are there.
    :param settings: their names, for people.
    :param open: the account that the settings name; with the wall clock. No I/O.
    :param calls: what it can do, by the calls of `/v1`: `send`, `send-bulk`,
        `send-bulk-personalized`, `send-otp`, `verify-otp`, `resend`, `cancel`; of the account.
        They raise `NotTaken` for what cannot be sent as it is (then surely nothing was sent), and
        `StoreUnavailable` if they need the store, before anything is sent.
    :param ask: what the provider tells of a message by its own id, within so many seconds.
        Raises `ProviderError` and `ValueError`. `None`: it cannot be asked.
    """

    is_set_up: Callable[[Config], bool]
    settings: tuple[str, ...]
    open: Callable[[Config, Store, Callable[[], int]], Any]
    calls: Mapping[str, Callable[[Any, Asked], Told]]
    ask: Callable[[Any, str, float], Sequence[Incoming]] | None = None


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
    :param sending: `None` if nothing can be sent through it.
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
    sending: Sending | None = None
