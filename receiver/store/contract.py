"""What the rest of the service asks of a database.

Times are microseconds (see `receiver.times`). Every method may raise `StoreUnavailable`, which
means: nothing of this call can be relied on, try again later. It may have been written all the
same, if only the answer to its commit was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol

from receiver.event import Incoming, Rejected, under_own_id
from receiver.metrics import Key
from receiver.mirror import Search
from receiver.status import Row
from receiver.store.claiming import tell_given_up
from receiver.store.erasing import Forgetting
from receiver.store.views import DeliveryState, Selection, Views

#: What became of an arrival. *Apart*: its id is another event's, so it has `event.own_id`.
Outcome = Literal["accepted", "duplicate", "quarantined", "accepted apart", "duplicate apart"]


def stored_as(item: Incoming, outcome: Outcome) -> tuple[Incoming, Outcome]:
    """An arrival as it was stored, and what became of it: where it was set apart, it has its own id
    and is `accepted` or `duplicate` like any other."""
    if outcome == "accepted apart":
        return under_own_id(item), "accepted"
    if outcome == "duplicate apart":
        return under_own_id(item), "duplicate"
    return item, outcome


#: Bodies in quarantine that are listed before they are read, one by one.
NAMED_AT_ONCE = 1_000

#: Bytes of a body that is read with the page that it stands on; longer ones are read by themselves.
SHORT_BODY = 8_192

#: Items in trouble that are counted.
MOST_TOLD = 1_000


class Report(NamedTuple):
    """That an event reported something of its message, when that was, and how it was learnt."""

    type: str
    #: Microseconds; `None` if the event did not say.
    reported_at: int | None
    has_error: bool
    source: str


class Missed(NamedTuple):
    """Reports that had to be fetched: when the first and the last of them happened, of how many
    messages they are, and how many there are of each type that was asked for."""

    first: int
    last: int
    messages: int
    counts: tuple[int, ...]


#: The status of a message that a phone has sent, or failed to send.
WAS_TRIED = "status IN ('sent', 'delivered', 'failed')"


def missed_of(
    rows: Sequence[tuple[Any, ...]],
) -> tuple[Missed | None, int, list[Missed]]:
    """What `Mirror.missed` tells.

    :param rows: a kind of row, the number of a gap, and what a `Missed` has; first that of all of
        them, with the number of the last gap, then the gaps.
    """
    whole, *latest = (
        Missed(first, last, messages, tuple(counts))
        for _, _, first, last, messages, *counts in rows
    )
    return (whole if whole.messages else None), rows[0][1] or 0, latest


class Want(NamedTuple):
    """What a worker has room for.

    :param limit: work items at most.
    :param lease: microseconds for which they are its own.
    :param max_attempts: the handler's.
    :param owner: who holds the leases, for `Work.leases`.
    """

    handler: str
    limit: int
    lease: int
    max_attempts: int
    owner: str = ""


class Claim(NamedTuple):
    """A leased work item with its event. `fence` tells this lease from every other of the item."""

    event_seq: int
    handler: str
    fence: int
    attempt: int
    event_id: str
    event_type: str
    message_id: str | None
    occurred_at: int
    received_at: int
    source: str
    late: bool
    redacted: bool
    body: bytes


class Settlement(NamedTuple):
    """The end of one lease. It counts only if nobody has leased the item since.

    :param due_at: when the item may run again; for ended items it does not matter.
    :param given_back: the handler was not called, so the attempt does not count.
    :param traceback: where the error came from.
    """

    claim: Claim
    state: DeliveryState
    due_at: int
    error: str | None = None
    given_back: bool = False
    traceback: str | None = None


#: A message's id and its row.
MirrorRow = tuple[str, Row]
#: Where a message stands in history: its time, and its id.
Place = tuple[int, str]
#: A message on a list: its place, and its row.
Listed = tuple[Place, Row]
#: A message's row, the number of its events, and some of them.
Evidence = tuple[Row, int, list[dict[str, Any]]]


class Expired(NamedTuple):
    """How much has been deleted, or would be."""

    messages: int = 0
    events: int = 0
    quarantined: int = 0

    def plus(self, other: Expired) -> Expired:
        return Expired(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Table(NamedTuple):
    """What is copied of a table; the first `key` columns order it and tell its rows apart."""

    name: str
    key: int
    columns: tuple[str, ...]


class Outlook(NamedTuple):
    """What a database is like before `migrate`.

    :param steps: the names of the steps that would be taken, in their order.
    :param breaking: whether older releases cannot work with it any more after them.
    :param events: how many are stored.
    :param size: of the database, in bytes.
    """

    steps: list[str]
    breaking: bool
    events: int
    size: int


class Ingest(Protocol):
    """What ingest asks: to keep what has arrived."""

    #: How many groups one process may write at the same time.
    committers: int
    #: Whether all processes share one writer. Then one process had best write again and again: what
    #: it has cached of the database is stale as soon as another one has written.
    one_writer: bool

    def ingest(
        self,
        items: Sequence[Incoming | Rejected],
        wanting: Callable[[str], Sequence[str]],
        patience: float,
        reading_done: Callable[[], None] = lambda: None,
    ) -> list[Outcome]:
        """Store all items in one durable transaction, or none of them.

        :param wanting: the names of the handlers that want an event type.
        :param patience: seconds to wait for other writers.
        :param reading_done: called as soon as what is left, or what must be waited for, takes the
            database's time alone; perhaps more than once, or never if it fails before.
        :returns: one outcome for each item, in their order.
        """

    def try_ingest(
        self,
        items: Sequence[Incoming | Rejected],
        wanting: Callable[[str], Sequence[str]],
        patience: float,
    ) -> None:
        """Write as `ingest` does, and take it back: nothing is stored.

        :raises StoreUnavailable: if `ingest` could not store them.
        """


class Work(Protocol):
    """What the worker asks: to take work, to end it, and to see how much there is."""

    #: How many times as long as a round has taken the worker rests after it: whoever receives may
    #: have waited for what the round has locked.
    rests: int

    def work(
        self,
        now: int,
        settlements: Sequence[Settlement],
        wants: Sequence[Want],
        patience: float,
        given_up: Callable[[str, Sequence[int]], None] = tell_given_up,
    ) -> list[Claim]:
        """Write the ends of leases and take new ones, in one transaction.

        Of one message at most one item of a handler is ever leased, the earliest first. What a
        call costs does not depend on how many items a message has: so it may get less than there
        is, and `next_due` then tells of the rest.

        :param patience: seconds to wait for other writers' locks, and not for the database itself.
        :param given_up: told after the commit which items of a handler are dead because their
            attempts have ended without a word.
        """

    def write_apart(self) -> None:
        """From now on, let no lock of the database that others want wait for Python's lock of this
        process, in which handlers compute. Before anything else is asked of this store."""

    def leases(self, owner: str, after: int) -> list[Claim]:
        """What an owner has leased and not ended: also where a lease has run out, as long as
        nobody else has taken the item.

        :param after: only leases that end later; what this costs grows with the work that is due
            later than that.
        """

    def renew(self, claim: Claim, until: int, patience: float) -> Claim | None:
        """Lease an item anew without a new attempt; `None` if the claim no longer holds it.

        :param until: when the new lease ends.
        :param patience: as for `work`.
        """

    def died(self, handler: str, seqs: Sequence[int]) -> list[tuple[Claim, str]]:
        """Those of these items that are dead, with their last errors."""

    def work_counts(self) -> list[tuple[str, int, int]]:
        """How many items of each handler wait or are leased, and how many are dead, by name."""

    def dead_of_handlers(self) -> list[tuple[str, int]]:
        """How much of the dead work belongs to each handler, by name: of the first `MOST_TOLD`."""

    def newest(self) -> int:
        """The number of the latest event; 0 in a new database. The difference of two tells how many
        events have come in between."""

    def next_due(self, handler: str, after: int) -> int | None:
        """When the handler's first item that is due later than `after` is due; leases count.

        What is parked behind another item of its message does not, until that one's lease ends.
        """

    def version(self) -> object:
        """A cheap token that changes when other connections have committed."""

    def owed(self) -> list[str]:
        """The names of the handlers for which work is pending, in order."""

    def bury(self, now: int, known: Sequence[str], wait: int) -> int:
        """End the work of handlers that nobody knows and that has been due for `wait`."""

    def unpark(self, now: int) -> int:
        """Find what is parked and would stay so, and make it due; returns of how many messages.

        Nothing is, unless a process of another release has ended leases without un-parking.
        """

    def backlog(self, now: int, handlers: Sequence[str]) -> tuple[int, int]:
        """How many items of these handlers may be claimed, and for how long the oldest has been, as
        far as the time is known at which it came in."""


class Mirror(Protocol):
    """What readers ask about messages."""

    def evidence(self, message_id: str, limit: int) -> Evidence | None:
        """A message's row, how many events it has, and the first of them as they came in."""

    def reports(self, message_ids: Collection[str]) -> Mapping[str, list[Report]]:
        """What the events of messages have reported, of each message at most the latest 1,000."""

    def missed(
        self, types: Sequence[str], together: int, most: int, provider: str | None = None
    ) -> tuple[Missed | None, int, list[Missed]]:
        """The reports of some types that came from reconciliation, are no repeats and say when.

        :param together: reports less than so many microseconds apart belong to one gap.
        :param most: gaps that are told.
        :param provider: whose reports; `None`: of all together.
        :returns: all of them as one, `None` without any; the number of gaps; and the latest gaps,
            the newest first.
        """

    def history(self, search: Search, offset: int, limit: int) -> tuple[int, list[MirrorRow]]:
        """A page of messages, newest first, then by id; and how many there are in all."""

    def messages(self, search: Search) -> Iterator[MirrorRow]:
        """All messages that match, newest first, then by id; read page by page."""

    def listed(self, search: Search, after: Place | None, limit: int) -> list[Listed]:
        """Messages that match, newest first, then by id. What this costs does not grow with the
        number of messages, and it does not tell how many there are.

        :param after: the place of the message that the first one comes after.
        """

    def statistics(
        self,
        first: int | None,
        last: int | None,
        device_id: str | None,
        provider: str | None = None,
        by: Sequence[Literal["day", "code", "device_id", "provider"]] = ("day",),
    ) -> list[tuple[Any, ...]]:
        """Numbers of messages, with those that have expired and without those of which tests alone
        have told: what they are told by, the status, the number.

        :param first, last: days since 1970-01-01, both included.
        """


class Upkeep(Protocol):
    """What the service asks by itself: to index, to forget and to give space back."""

    def index_texts(self, patience: float) -> bool:
        """Make some of the new texts quick to search, and numbers quick to find.

        :returns: whether there are more.
        """

    def tidy(self) -> None:
        """Do what a commit would otherwise have to do; to be called about once a second."""

    def expire(self, before: int, patience: float) -> Expired:
        """Delete a small batch of what was last touched before a time, in one transaction.

        Work that is owed stays, and what it belongs to. Statistics do not change.

        :returns: what was deleted; nothing, if there is no more.
        """

    def expirable(self, before: int) -> Expired:
        """What `expire` would delete, called again and again."""

    def latest(self) -> int | None:
        """The latest time that the last 200 events tell of: each of its `timestamp`, which its
        sender has signed, or else of its receipt. `None` without any."""

    def date_undated(self, now: int) -> None:
        """The clock is trusted: what came in while it was not counts from now on, if not yet."""

    def bound_quarantine(self, most: int, patience: float) -> int:
        """Where bodies in quarantine take more than so many bytes, delete some of the oldest. All
        of them were answered 400. Reads nothing where none has come since the last call.

        :returns: how many were deleted; 0, if it is enough.
        """

    def room(self) -> float | None:
        """Which part of the database's disk is free; `None` if that is another machine's."""

    def warning(self) -> str | None:
        """What is not right with the database, and harms nobody yet. Touches no connection."""

    def shrink(self, patience: float) -> bool:
        """Give a little of the space that is free back to the disk.

        :returns: whether there is more to give.
        """


class Phones(Protocol):
    """What alerts ask about the phones that send."""

    def last_heard(self) -> Mapping[str, int]:
        """By phone: the latest time of a message that it has sent, or failed to send."""

    def heard(self, spans: Sequence[tuple[str, int, int]], most: int) -> list[int]:
        """How many such messages there are in each span: a phone, after when, up to when.

        :param most: no more than these are counted.
        """


class Marks(Protocol):
    """What processes agree on: whose turn it is, tokens that they share, notes."""

    def claim_turn(self, name: str, now: int, until: int) -> bool:
        """Whether it is this caller's turn to do something, and nobody else's before `until`.

        Whoever dies over it leaves the rest to the next turn.
        """

    def turn(self, name: str) -> int | None:
        """When the last turn ends; `None` if there was none yet."""

    def keep_turn(self, name: str, until: int, later: int) -> bool:
        """Change the end of a turn from `until`; false if somebody else has taken it since."""

    def take(self, name: str, now: int, interval: int, room: int | None) -> int:
        """Take one token from a bucket that all processes share.

        :param interval: microseconds in which one token comes back.
        :param room: microseconds of tokens that may be taken ahead; `None`: as many as one likes.
        :returns: 0 if it was taken, else the microseconds until one is there.
        """

    def note(self, name: str) -> str | None:
        """A short text that was written down under a name."""

    def write_note(self, name: str, text: str) -> None:
        """Write a text down in the place of the one before."""

    def notes(self, prefix: str) -> Mapping[str, str]:
        """All notes whose names begin so, by name."""

    def write_notes(self, texts: Mapping[str, str | None]) -> None:
        """Write texts down by their names, in one durable transaction; `None` takes one away."""


class Counters(Protocol):
    """Numbers that only grow, whatever becomes of the rows that they were counted by."""

    def add_counts(self, token: str, counts: Mapping[Key, int], patience: float) -> None:
        """Add to counters, in one durable transaction.

        :param token: of this batch. What has been added under it before is not added again, unless
            a thousand other batches were since.
        """

    def count_arrivals(self, types: Collection[str], patience: float) -> bool:
        """Count new events that are stored and that nobody has counted yet: each exactly once, by
        whichever process, and before it can expire.

        :param types: those with a counter of their own.
        :returns: whether there may be more.
        """

    def counters(self) -> Mapping[Key, int]:
        """What has been counted up to this moment, by whomever."""

    def kept(self) -> tuple[Mapping[str, int], int]:
        """How many messages are kept, by status, and how many bytes all takes on the disk. No
        message is read for it."""


class Records(Protocol):
    """What operators ask about what has arrived: events with their work, and quarantine."""

    def events(self, selection: Selection) -> Iterator[dict[str, Any]]:
        """The selected events with their deliveries, oldest first, read page by page."""

    def body(self, event_id: str) -> bytes | None:
        """The stored body of an event."""

    def bodies(self, event_ids: Sequence[str]) -> Mapping[str, bytes]:
        """The stored bodies of some events, by their ids."""

    def tracebacks(self, event_id: str) -> Mapping[str, str]:
        """Where the last errors of an event's handlers came from, by the handlers' names."""

    def unclaimed(self, event_id: str, handler: str) -> Claim | None:
        """An event as a handler's first claim would have it; nothing is claimed."""

    def replay(
        self,
        selection: Selection,
        *,
        wanting: Callable[[str], Sequence[str]],
        now: int,
        dry_run: bool,
        progress: Callable[[int], None],
        most: int | None = None,
    ) -> int:
        """Make the selected events work again for the handlers that want them.

        Leased work is left alone. Repeats are dispatched only if named by id.

        :param progress: called with the number of work items so far, after each batch.
        :param most: begin no batch after so many work items.
        :returns: the number of work items.
        """

    def quarantined(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        """Quarantine, oldest first, read one by one: those whose digest begins with `prefix`."""

    def release(self, digest: str) -> None:
        """Take a body out of quarantine."""


class Copy(Protocol):
    """What moving everything from one store into another asks of both."""

    def moment(self) -> AbstractContextManager[None]:
        """Within it, all `rows` of this thread are of one moment."""

    def copy_file(self, path: str, progress: Callable[[float], None]) -> bool:
        """Copy the whole store, as it is at one moment, into a new file of SQLite.

        :param progress: told which part is done, from 0 to 1.
        :returns: false if this engine can only do so row by row.
        """

    def others(self) -> bool:
        """Whether anybody else is connected: a service, or a command of one."""

    def rows(self, table: Table, after: tuple[Any, ...] | None, limit: int) -> list[Any]:
        """Rows of a table in the order of their keys, after a key."""

    def put_rows(self, table: Table, batch: Sequence[tuple[Any, ...]]) -> None:
        """Write rows of a table, in place of those with the same keys, in one transaction."""

    def settle_copy(self) -> None:
        """Go on after the greatest event that was put."""


class Engine(NamedTuple):
    """What a store is on.

    :param title: the engine with its version.
    :param file: of SQLite; `None` for a server.
    :param clock: the server's wall clock, in microseconds; `None` where it is this machine's.
    """

    title: str
    file: str | None = None
    clock: int | None = None


class Store(
    Ingest,
    Work,
    Mirror,
    Phones,
    Upkeep,
    Marks,
    Counters,
    Records,
    Views,
    Copy,
    Forgetting,
    Protocol,
):
    """All that an engine must do. The same tests run against each of them."""

    def migrate(self) -> list[str]:
        """Bring the schema up to date; any number of processes may do so at once.

        :returns: the names of the steps that were taken.
        """

    def outlook(self) -> Outlook:
        """What `migrate` would do. Nothing is written, and no file is made.

        :raises SchemaMismatch: if a newer release has migrated the database, so that this one
            cannot work with it.
        """

    def troubles(self, now: int, handlers: Sequence[str]) -> list[tuple[str, int, int]]:
        """Of each handler: how many items are dead, and how many wait for another attempt after a
        failure. Both are counted up to `MOST_TOLD`."""

    def prove_writable(self) -> None:
        """Prove, by a write, that the store takes writes and has the right schema.

        :raises SchemaMismatch: if it has another.
        """

    def engine(self) -> Engine:
        """What this store is on, asked now."""

    def close(self) -> None:
        """Close this process's connections."""
