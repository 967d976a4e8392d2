"""What becomes of a request on the event loop, and how many connections and bytes there may be.

A webhook is authenticated and parsed here, and answered when its commit is there: no thread waits
for it. All else goes to Flask's threads.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from email.utils import formatdate
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from werkzeug.exceptions import NotFound

from receiver.errors import Refused, StoreUnavailable
from receiver.ingest import Ticket, deadline_for
from receiver.logs import Sparingly
from receiver.metrics import ACKNOWLEDGED
from receiver.parts import Receiver
from receiver.receiving import ELSEWHERE, Steps
from receiver.web import ops
from receiver.web.answers import json_answer, refusal
from receiver.web.bodies import LARGEST_PASSED_ON, too_large
from receiver.web.front.connection import Connection
from receiver.web.front.flask_threads import FlaskThreads
from receiver.web.front.pool import OnLoop, Pool
from receiver.web.front.requests import Refuse, Request
from receiver.web.paths import HEALTH, meant

log = logging.getLogger(__name__)

#: Connections of a process; if the system allows fewer files, fewer.
MOST_CONNECTIONS = 4_000
#: Bytes of requests that are not whole, over all connections; and once they were more.
MOST_HELD = 16 * 1024 * 1024
HELD_AFTERWARDS = MOST_HELD * 31 // 32
#: Bytes of large bodies that wait to be parsed.
MOST_UNPARSED = 32 * 1024 * 1024
#: Bytes of a body that Flask is given at most: one more than it takes, to tell that there is more.
LARGEST_FOR_FLASK = LARGEST_PASSED_ON + 1
#: Seconds between two looks at what is late; and how many connections one look closes.
LOOK = 0.25
_CLOSED_AT_ONCE = 200
#: Seconds for those who have sent much ahead, until it is everybody's turn.
_TURN = 0.005

#: A target in which there is nothing to take apart or to decode.
_AS_IT_IS = re.compile(rb"/[A-Za-z0-9/_.~-]*")
#: Below it errors have the shape that belongs to webhooks.
_WEBHOOKS = "/webhooks"


class Front:
    """See the module. All of it runs on the event loop.

    :param application: Flask, for all that is not a webhook.
    :param log_access: told of each answer, if somebody wants to know.
    :param clock: in seconds; that of `look`.
    """

    def __init__(
        self,
        receiver: Receiver,
        application: Any,
        loop: asyncio.AbstractEventLoop,
        *,
        most_connections: int = MOST_CONNECTIONS,
        log_access: Callable[[Connection, Request, int, int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receiver = receiver
        self._loop = loop
        self.most_connections = most_connections
        self._log_access = log_access
        self._clock = clock
        #: Requests that were answered.
        self.answers = 0
        self._flask = FlaskThreads(application, receiver.config.web_threads, loop)
        #: Large bodies of authenticated senders are parsed here, one after the other.
        self._parser = Pool("parser", 1, MOST_UNPARSED, loop)
        self._parser.start()  # now: later the system may allow no thread
        self._connections: set[Connection] = set()
        #: Those that have sent nothing authenticated, the longest silent one first.
        self._strangers: dict[Connection, None] = {}
        self._held = 0
        #: Those on which there is more to do, in the order of their turns.
        self._turns: deque[Connection] = deque()
        self._turning = False
        #: Requests that wait for their commit.
        self._waiting: dict[Ticket, tuple[Connection, Request, Steps]] = {}
        self._stopping = False
        self._malformed = Sparingly()
        self._given_up = Sparingly()
        self._no_room = Sparingly()
        self.date = formatdate(usegmt=True)

    def connect(self) -> Connection:
        """A protocol for the loop's server."""
        return Connection(self, self._clock)

    # --- connections

    def opened(self, connection: Connection) -> None:
        if len(self._connections) >= self.most_connections:
            # Whoever has shown a right signature stays; and a flood must not keep others out.
            goes = next(iter(self._strangers), connection)
            goes.abort()
            self.closed(goes)
            if goes is connection:
                return
        self._connections.add(connection)
        self._strangers[connection] = None

    def let_go(self, number: int) -> bool:
        """Make room: close so many of those that have sent nothing authenticated.

        :returns: whether there were any.
        """
        gone = list(self._strangers)[:number]
        for connection in gone:
            connection.abort()
        return bool(gone)

    def no_room(self, error: OSError | MemoryError) -> None:
        held_back = self._no_room.admit()
        if held_back is not None:
            log.error(
                "webhooks wait at the door, no connection can be accepted: %s; if these are files,"
                " allow this process more (ulimit -n) (%d more since the last line)",
                str(error) or type(error).__name__,
                held_back,
            )

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._strangers.pop(connection, None)

    def heard(self, connection: Connection) -> None:
        if connection in self._strangers:  # now it stands last
            del self._strangers[connection]
            self._strangers[connection] = None

    def holds(self, connection: Connection, change: int) -> None:
        self._held += change
        if change > 0 and self._held > MOST_HELD:
            self._give_up_the_largest()

    def _give_up_the_largest(self) -> None:
        """Of the requests that are not whole. One look at all of them makes room for many."""
        now = self._clock()
        # Who holds much for long: what is large and honest comes at once.
        largest = sorted(
            (each for each in self._connections if each.held),
            key=lambda each: (each.held * (now - each.since), each.held),
        )
        while largest and self._held > HELD_AFTERWARDS:
            held_back = self._given_up.admit()
            if held_back is not None:
                log.warning(
                    "a request that was not whole was given up, too many of them are large"
                    " (%d more since the last line)",
                    held_back,
                )
            largest.pop().abort()

    def again(self, connection: Connection) -> None:
        self._turns.append(connection)
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._take_turns)

    def _take_turns(self) -> None:
        """For a moment: then the loop looks at what has come on other connections."""
        until = time.monotonic() + _TURN
        try:
            while self._turns and time.monotonic() < until:
                self._turns.popleft().go_on()
        finally:
            self._turning = bool(self._turns)
            if self._turning:
                self._loop.call_soon(self._take_turns)

    def malformed(self, why: str) -> None:
        held_back = self._malformed.admit()
        if held_back is not None:
            log.warning(
                "a request was refused, it is no proper HTTP: %s (%d more since the last line)",
                why,
                held_back,
            )

    def look(self, now: float) -> None:
        """Answer and close what is late. To be called every `LOOK` seconds."""
        self.date = formatdate(usegmt=True)
        for ticket in [ticket for ticket in self._waiting if ticket.deadline < now]:
            self._receiver.ingest.give_up(ticket)
            self._committed([ticket])
        self._parser.look(now)
        self._flask.look(now)
        late = [each for each in self._connections if each.is_late(now)]
        for connection in late[:_CLOSED_AT_ONCE]:  # a few milliseconds; the others are next
            connection.abort()

    def _known(self, connection: Connection) -> None:
        connection.known = True
        self._strangers.pop(connection, None)

    # --- requests

    def head(self, connection: Connection, request: Request) -> None:
        path = path_of(request)
        receiving = self._receiver.receiving
        found = receiving.find(path)
        if found is not None and found.accepts(request.method):
            request.limit = receiving.largest_body
        elif found is None and receiving.needs_secret(path):
            # Before a byte of the body is asked for.
            receiving.refusals.path(path, signed=False)
            raise Refuse(404, str(NotFound.description))
        else:
            request.limit = max(LARGEST_FOR_FLASK, self._receiver.config.max_body_bytes + 1)

    def whole(self, connection: Connection, request: Request) -> None:
        if self._stopping:
            connection.close_after_answer()
        path = path_of(request)
        found = self._receiver.receiving.find(path)
        if found is not None and found.accepts(request.method):
            if request.cut:
                self._receiver.receiving.refusals.size()
                connection.answer(*refusal(path, too_large(request.limit)))
                return
            claimed = found.claimed
            if found.door.header is not None:
                shown = request.header(found.door.header.lower().encode())
                claimed = None if shown is None else shown.decode("latin-1")
            steps = self._receiver.receiving.receive(found.provider, request.body, claimed)
            self._go_on(connection, request, steps, lambda: next(steps))
        elif path == HEALTH and request.method in ("GET", "HEAD"):
            connection.answer(*ops.HEALTHY)
        else:
            self._flask.run(
                connection,
                request,
                path,
                known=lambda: self._loop.call_soon_threadsafe(self._known, connection),
            )

    def _go_on(
        self,
        connection: Connection,
        request: Request,
        steps: Steps,
        step: Callable[[], Any],
    ) -> None:
        """Take a step of the description, and see to what it asks for."""
        try:
            items = step()
        except StopIteration as end:
            connection.answer(*json_answer(200, end.value))
            self._receiver.counting.observe(ACKNOWLEDGED, self._clock() - request.ended)
            return
        except Exception as error:
            connection.answer(*refusal(_WEBHOOKS, error))
            found = self._receiver.receiving.find(path_of(request))
            if isinstance(error, Refused) and error.status == 401 and found is not None:
                told = {n.decode("latin-1"): v.decode("latin-1") for n, v in request.headers}
                self._receiver.receiving.refused(found, request.body, told)
            return
        self._known(connection)  # it was authenticated, or there were nothing to do for it
        deadline = deadline_for(request.began, request.ended)
        if items is ELSEWHERE:
            go_on = partial(self._go_on, connection, request, steps)
            # The other half of the time is for the commit.
            wait = (deadline - self._clock()) / 2
            self._parser.put(_Parse(steps, go_on), wait, len(request.body))
            return
        ticket = Ticket(items, deadline, self._tell)
        try:
            self._receiver.ingest.put(ticket)
        except Exception as error:
            ticket.error = error
            self._waiting[ticket] = connection, request, steps
            self._committed([ticket])
        else:
            self._waiting[ticket] = connection, request, steps

    def _tell(self, tickets: list[Ticket]) -> None:
        """Called by the committer: once for a whole group, for each call wakes the loop."""
        self._loop.call_soon_threadsafe(self._committed, tickets)

    def _committed(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            waiting = self._waiting.pop(ticket, None)
            if waiting is not None:  # else it was given up, and is answered
                connection, request, steps = waiting
                self._go_on(connection, request, steps, partial(_what_became_of, ticket, steps))

    def answered(self, connection: Connection, request: Request, status: int, size: int) -> None:
        self.answers += 1
        if status == 400 and request.ended == request.began:  # it never came whole
            receiving = self._receiver.receiving
            found = receiving.find(path_of(request))
            if found is not None and found.accepts(request.method):
                receiving.cut_short()
        if self._log_access is not None:
            self._log_access(connection, request, status, size)

    # --- the end

    def stop(self) -> None:
        """Answer what is in hand and what comes at this moment, and no more."""
        self._stopping = True

    def close_idle(self) -> None:
        """Close the connections on which nothing is in hand."""
        for connection in list(self._connections):
            connection.close_after_answer()

    def close_incomplete(self) -> None:
        """Close the connections on which nothing whole has come."""
        for connection in list(self._connections):
            if not connection.is_in_hand:
                connection.abort()

    @property
    def is_busy(self) -> bool:
        """Whether another process had better take new connections: this one has many, half of its
        threads for Flask are taken, or it stores nothing."""
        return (
            len(self._connections) > self.most_connections // 2
            or self._flask.is_half_taken
            or self._parser.is_half_taken
            or self._receiver.ingest.problem is not None
        )

    @property
    def has_died(self) -> bool:
        """Whether this process can store nothing any more."""
        return self._receiver.ingest.has_died

    @property
    def has_pages_in_hand(self) -> bool:
        """Whether Flask has something to answer."""
        return self._flask.in_hand > 0

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def abort(self) -> None:
        """Close all of them by force."""
        for connection in list(self._connections):
            connection.abort()


class _Parse:
    """A step of the description that would hold up the loop.

    :param go_on: called on the loop, with what gives the step's result.
    """

    def __init__(self, steps: Steps, go_on: Callable[[Callable[[], Any]], None]) -> None:
        self._steps = steps
        self._go_on = go_on

    def run(self, on_loop: OnLoop) -> None:
        done: Future[Any] = Future()
        try:
            done.set_result(self._steps.send(None))
        except BaseException as error:
            done.set_exception(error)
        on_loop(self._go_on, done.result)

    def refuse(self) -> None:
        error = StoreUnavailable("more is waiting to be read than can be answered in time")
        self._go_on(partial(self._steps.throw, error))


def _what_became_of(ticket: Ticket, steps: Steps) -> object:
    """Let the description know, and take its next step."""
    if ticket.outcomes is None:
        return steps.throw(ticket.error or StoreUnavailable("the commit was interrupted"))
    return steps.send(ticket.outcomes)


def path_of(request: Request) -> str:
    """The decoded path that a request means, as WSGI has it: bytes as Latin-1."""
    target = request.target
    if _AS_IT_IS.fullmatch(target):
        return meant(target.decode("ascii"))
    path = target.partition(b"#")[0].partition(b"?")[0]
    if not path.startswith(b"/"):  # http://host/path, as proxies are asked
        _, separator, rest = path.partition(b"://")
        path = b"/" + rest.partition(b"/")[2] if separator else path
    return meant(unquote_to_bytes(path).decode("latin-1"))
