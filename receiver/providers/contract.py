"""What the service asks of a provider: a few functions, and some data.

A provider says who may speak, what was said, what it wants to hear, and how its events are read. It
does no I/O for that, and knows nothing of sockets, Flask, the database or the clock. Its account is
what can be asked over the network; who can be sent through has `Sending`, whose calls do that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from receiver.config import Config
from receiver.errors import Unusable
from receiver.event import Incoming, Read, Rejected
from receiver.providers.budget import Budget
from receiver.providers.requests import Fields, NotTaken
from receiver.store.contract import Outcome, Report, Store
from receiver.strict_json import read_json

if TYPE_CHECKING:  # whoever only reads what was reported does without HTTP
    from receiver.providers.exchange import Answer

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


class Shown(Protocol):
    """A message as an account shows it, in its history or by itself."""

    @property
    def own_id(self) -> str:
        """Its id as the provider itself has it."""

    @property
    def latest(self) -> int | None:
        """The latest time that is told of it."""

    @property
    def whole(self) -> bool:
        """To ask for it by itself would tell no more."""

    @property
    def waits(self) -> bool:
        """It is in the queue, or was taken out of it: the provider never reports that by itself."""

    @property
    def undated(self) -> bool:
        """It has failed, and nobody says when: perhaps a moment ago."""

    def facts(
        self, known: Sequence[Report], *, now: int, retention: int, text_mode: str
    ) -> list[Incoming]:
        """The events that it stands for and that nothing has reported yet, by their time.

        Nothing is said of a message that changed less than `History.quiet` ago.

        :param known: what the message's events have reported.
        """

    def may_be_new(self, known: Sequence[Report], since: int) -> bool:
        """Whether there may be more to a message that has no facts, and is not whole.

        :param since: where the part of the history begins in which it was found.
        """


class Part(NamedTuple):
    """A page of a history."""

    shown: Sequence[Shown]
    #: Messages without an id.
    nameless: int = 0
    #: How many messages there should be on all pages; `None` if nobody says so.
    total: int | None = None


@dataclass(frozen=True)
class History:
    """What a provider's history can tell, and how it may be asked. Times are microseconds.

    :param quiet: for so long after a change the provider may still report it by itself.
    :param back: how far back a message may have begun that still changes.
    :param at_once: how much of the past is asked for at once where all of it is; whole days.
    :param last_state_alone: it tells the state that a message came to, and not the way there.
    :param longest_wait: when the provider says from when on it may be asked again, that is obeyed
        if it is no further ahead.
    :param per_minute: calls that its budget allows in a minute, at most.
    :param id_name: the field of a message's id.
    """

    quiet: int
    back: int
    at_once: int
    last_state_alone: bool
    longest_wait: int
    per_minute: int
    id_name: str


class Account(Protocol):
    """An account at a provider, that is asked for what its reports did not bring.

    Calls raise `ProviderError`, and `StoreUnavailable` if the budget's store cannot be used.
    """

    @property
    def provider(self) -> str:
        """The provider's name; `title` as people write it."""

    @property
    def title(self) -> str: ...

    @property
    def history(self) -> History: ...

    @property
    def address(self) -> str:
        """Where it is asked, as a phrase for people: the setting and its value."""

    @property
    def now(self) -> Callable[[], int]:
        """The provider's clock: the wall's, but for a simulator's."""

    @property
    def budget(self) -> Budget:
        """Its own, shared by all processes."""

    def within(self, *, tries: int, patience: float, budget: Budget) -> Self:
        """The same account with other bounds; see `receiver.providers.exchange`."""

    def ask(self, since: int, until: int | None) -> Iterator[Part]:
        """Messages that changed in a span of time, or that may have; each page is fetched when it
        is asked for.

        :param until: `None`: up to now.
        """

    def look(self, own_id: str) -> Shown:
        """One message."""

    def probe(self) -> None:
        """Make a cheap call; it fails if the account as a whole cannot be asked."""


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


class Sender(Protocol):
    """An account at a provider, that is sent through.

    :ivar client: of the provider's API.
    """

    client: Any

    @property
    def calls(self) -> Mapping[str, Callable[[Asked], Told]]:
        """The calls of `/v1` that it can do: `send`, `send-bulk`, `send-bulk-personalized`,
        `send-otp`, `verify-otp`, `resend`, `cancel`.

        They raise `NotTaken` for what was not taken, and `StoreUnavailable` if they need the store,
        before anything is sent.
        """

    def ask(self, own_id: str, within: float) -> Sequence[Incoming]:
        """What the provider tells of a message by its own id; nothing if it cannot be asked.

        :param within: seconds.
        :raises ProviderError: if there is no answer of use; `ValueError` if no request holds it.
        """


@dataclass(frozen=True)
class Sending:
    """How SMS are sent through a provider.

    :param is_set_up: whether all of its settings are there.
    :param settings: their names, for people.
    :param open: who sends with the account that they name, by the wall clock. No I/O.
    """

    is_set_up: Callable[[Config], bool]
    settings: tuple[str, ...]
    open: Callable[[Config, Store, Callable[[], int]], Sender]


@dataclass(frozen=True)
class Provider:
    """One provider.

    :param name: as in paths, settings and ids (see `receiver.ids`).
    :param title: as people write it.
    :param is_set_up: whether the settings are there without which it does not take part.
    :param door: `None` for one that does not report by itself.
    :param raw: what a handler gets of a stored body as `Event.raw`.
    :param tries: how often it sends a report at most; `None` if nobody knows.
    :param sample: see `receiver.providers.zimsend.samples.sample`; it raises `ValueError` for what
        reports of this provider do not say.
    :param reports_delivery: whether it ever tells that a message was delivered.
    :param sending: `None` if nothing can be sent through it.
    :param account: who is asked for what its reports did not bring, by the settings, the store and
        the wall clock; `None` where its credentials are not set, or nobody can be asked.
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
    account: Callable[[Config, Store, Callable[[], int]], Account | None] = lambda *_: None
