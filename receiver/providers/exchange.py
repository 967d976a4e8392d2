"""How a provider's API is called: what a request can hold, tries, budget, and how long at most."""

from __future__ import annotations

import copy
import itertools
import random
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote, unquote

import httpx

from receiver import threads
from receiver.errors import Unusable
from receiver.outgoing import http_client, time_limit
from receiver.providers import errors
from receiver.providers.budget import Budget
from receiver.providers.errors import NotUnderstood, ProviderError, TryLater, Unavailable
from receiver.strict_json import read_json

#: Bytes of an answer: many times what 100 long messages with metadata need.
LARGEST_ANSWER = 16 * 1024 * 1024
#: Seconds before the second try, at most, and the most there is between two tries.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0
_CONNECT_WITHIN = 5.0
_CONNECTIONS = 16

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: What a header carries unchanged.
_FITS_A_HEADER = re.compile(r"[!-~](?:[\t -~]*[!-~])?")
#: A path or a query that is encoded already.
_FITS_A_URL = re.compile(r"[!-~]*")
#: Headers that belong to one connection, or to how a body travels on it.
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "upgrade", "te", "trailer"),
        *("proxy-authenticate", "proxy-authorization"),
        *("content-encoding", "content-length", "transfer-encoding"),
    }
)
#: What a caller says to us, not to the provider.
_NOT_FORWARDED = (_HOP_BY_HOP - {"content-encoding"}) | {
    *("authorization", "cookie", "x-api-key", "x-client-id"),
    *("accept-encoding", "expect", "host"),
}


T = TypeVar("T")


class Answer(NamedTuple):
    """An answer as it came, but for the headers of the connection. The body is not compressed."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long, how often and when a call is tried.

    :param timeout: seconds for one try as a whole, from the resolver to the answer's last byte.
    :param tries: how often a call is tried at most.
    :param patience: seconds from a call's beginning after which it does not wait any more, for
        the budget or for its next try.
    :param budget: asked before every try.

    :raises ValueError: if that makes no sense.
    """

    timeout: float
    tries: int
    patience: float
    budget: Budget | None

    def __post_init__(self) -> None:
        if not (self.timeout > 0 and self.tries >= 1 and self.patience >= 0):
            raise ValueError("timeout must be over 0 seconds, tries at least 1, patience 0")


class Exchange:
    """Makes the calls of one account, each as often as it takes and its bounds allow.

    :param title: the provider, as people write it.
    :param credentials: the headers that say whose account it is. No error shows what they hold.
    :param base: http or https.
    :param sleep: waits so many seconds.
    :param clock: seconds that only grow.
    :raises ValueError: if one of them is of no use.
    """

    def __init__(
        self,
        title: str,
        credentials: Mapping[str, str],
        base: str,
        bounds: Bounds,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self.base = base_url(base)
        self._title = title
        self.secrets = tuple(credentials.values())
        self._bounds = bounds
        self._sleep = sleep
        self._clock = clock
        self._http = http_client(
            headers={
                **credentials,
                "User-Agent": "zimsend-receiver",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            most_connections=_CONNECTIONS,
        )

    def within(self, **bounds: Any) -> Exchange:
        other = copy.copy(self)
        other._bounds = replace(self._bounds, **bounds)
        return other

    def close(self) -> None:
        self._http.close()

    def perform(
        self,
        method: str,
        path: str,
        query: str,
        body: bytes | None,
        headers: httpx.Headers,
        understand: Callable[[Answer], T],
        *,
        repeatable: bool = False,
    ) -> T:
        """Try until it is done, or until one more try is wrong or of no use.

        :param path: below the base URL, encoded; likewise `query`.
        :param understand: makes a result of an answer; raises `ProviderError`.
        :param repeatable: twice is no worse than once.
        """
        until = self._clock() + self._bounds.patience
        earlier: ProviderError | None = None
        for number in itertools.count(1):
            if wait := self._wait_for_budget(until):
                raise earlier or TryLater(
                    f"the next call to {self._title} may be made in {wait:.3g} s", retry_after=wait
                )
            try:
                return understand(self._try(method, path, query, body, headers))
            except ProviderError as error:
                again = _is_passing(error) if repeatable else _never_left(error)
                pause = _pause(number, error)
                if not again or number >= self._bounds.tries or self._clock() + pause > until:
                    raise error from earlier
                # Rather the one that may have done what was asked.
                if earlier is None or error.maybe_sent or not earlier.maybe_sent:
                    earlier = error
            self._sleep(pause)
        raise AssertionError("itertools.count() has no end")

    def _wait_for_budget(self, until: float) -> float:
        """Wait for one call; returns 0, or the seconds that would be longer than patience is."""
        budget = self._bounds.budget
        while budget is not None and (wait := budget.take()) > 0:
            if self._clock() + wait > until:
                return wait
            self._sleep(wait)
        return 0.0

    def _try(
        self, method: str, path: str, query: str, body: bytes | None, headers: httpx.Headers
    ) -> Answer:
        url = f"{self.base}{path}?{query}" if query else f"{self.base}{path}"
        timeout = self._bounds.timeout
        try:
            request = self._http.build_request(
                method,
                url,
                content=body,
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_WITHIN)),
            )
        except httpx.InvalidURL as error:  # too long
            raise ValueError(str(error)) from None
        attempt = Attempt(self._http, request)
        try:
            return attempt.run_within(timeout)
        except httpx.DecodingError:
            raise NotUnderstood("the answer is badly compressed", maybe_sent=True) from None
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__}: {error}".removesuffix(": ")
            # Without its cause, which holds the request with the credentials.
            raise Unavailable(
                errors.clean(reason, self.secrets),
                maybe_sent=attempt.left,
                timed_out=isinstance(error, httpx.TimeoutException),
            ) from None


class Client:
    """What the clients of all accounts have; each makes its `_exchange`, and its calls."""

    _exchange: Exchange

    def within(self, **bounds: Any) -> Self:
        """The same account and the same connections, with other bounds.

        :param bounds: `timeout`, `tries`, `patience` or `budget`; the others stay.
        """
        other = copy.copy(self)
        other._exchange = self._exchange.within(**bounds)
        return other

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._exchange.base!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; no call can be made any more."""
        self._exchange.close()


def _is_passing(error: ProviderError) -> bool:
    return isinstance(error, Unavailable) or error.status == 429 or (error.status or 0) >= 500


def _never_left(error: ProviderError) -> bool:
    return isinstance(error, Unavailable) and not error.maybe_sent


def _pause(tries: int, error: ProviderError) -> float:
    """Seconds until the next try: exponential, with full jitter; not before somebody asked for."""
    ceiling = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(tries - 1, 32))
    return max(random.uniform(0, ceiling), error.retry_after or 0.0)


class Attempt:
    """One request on its way, in a thread of its own.

    The thread keeps to the same time, but nothing bounds the resolver. Who must not be held up can
    only stop waiting.
    """

    def __init__(self, http: httpx.Client, request: httpx.Request) -> None:
        self._http = http
        self._request = request
        self._lock = threading.Lock()
        self._given_up = False
        self._ended = threading.Event()
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        #: The first bytes of the request may have been sent.
        self.left = False
        request.extensions["trace"] = self._watch

    def run_within(self, seconds: float) -> Answer:
        """Send it and read the answer whole. After a time-out it will not be sent any more.

        :raises httpx.HTTPError: if that did not succeed.
        :raises NotUnderstood: if the answer is too large.
        """
        if threads.begin(partial(self._run, seconds), "provider-call") is None:
            raise httpx.ConnectError("this process has no thread for it")
        if not self._ended.wait(seconds):
            with self._lock:
                self._given_up = True
            raise httpx.TimeoutException(f"no answer within {seconds:g} s")
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer

    def _watch(self, event: str, _: object) -> None:
        if event.endswith(".send_request_headers.started"):
            with self._lock:
                if self._given_up:
                    raise httpx.ConnectTimeout("nobody waits for it any more")
                self.left = True

    def _run(self, seconds: float) -> None:
        try:
            with time_limit(seconds):
                self._answer = self._read()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def _read(self) -> Answer:
        answer = self._http.send(self._request, stream=True)
        try:
            body = bytearray()
            for piece in answer.iter_bytes():
                body += piece
                if self._given_up:
                    raise httpx.ReadTimeout("nobody waits for it any more")
                if len(body) > LARGEST_ANSWER:
                    problem = f"the answer is larger than {LARGEST_ANSWER} bytes"
                    raise NotUnderstood(problem, status=answer.status_code, maybe_sent=True)
        finally:
            answer.close()
        headers = [pair for pair in answer.headers.multi_items() if pair[0] not in _HOP_BY_HOP]
        return Answer(answer.status_code, headers, bytes(body))


def understand(
    answer: Answer,
    read: Callable[[Any], T] | None,
    refusal: Callable[[Answer, Any], ProviderError | None],
) -> T:
    """What an answer means.

    :param read: makes a result of the JSON; raises `Unusable`. `None`: there is no result.
    :param refusal: the error that an answer is, of it and its JSON (`None` if it is none);
        `None` if it is a result.
    :raises ProviderError: if it is an error, or cannot be understood.
    """
    document, problem = None, None
    try:
        document = read_json(answer.body)
    except Unusable as error:
        problem = error
    refused = refusal(answer, document)
    if refused is not None:
        raise refused
    try:
        if read is None:
            return None  # type: ignore[return-value]
        if problem is not None:
            raise problem
        return read(document)
    except Unusable as error:
        raise NotUnderstood(
            f"the answer cannot be understood: {error.reason}",
            status=answer.status,
            maybe_sent=True,
            raw=document,
        ) from None


# --- what a request can hold


def check_target(method: str, path: str, query: str) -> None:
    """
    :raises ValueError: if these would ask for anything but what stands below the base URL.
    """
    if not (
        path.startswith("/")
        and _FITS_A_URL.fullmatch(path + query)
        and not {"?", "#"} & set(path)
        and "#" not in query
        and not {".", ".."} & set(unquote(path).split("/"))
    ):
        raise ValueError("path and query must be encoded parts of a URL, without dot segments")
    if not _TOKEN.fullmatch(method):
        raise ValueError("method must be an HTTP method")


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Of a caller's headers those that are meant for the provider."""
    sent = {}
    for name, value in headers.items():
        if name.lower() not in _NOT_FORWARDED:
            if not _TOKEN.fullmatch(name):
                raise ValueError("the name of a header is none")
            sent[name] = header(value, f"the header {name}")
    return sent


def base_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL("")
    more = parsed.userinfo or parsed.query or parsed.fragment
    # httpx encodes what no host's name can hold.
    named = parsed.host and "%" not in parsed.host
    if parsed.scheme not in ("http", "https") or not named or more:
        raise ValueError("base_url must be like https://api.example.com/v1")
    return str(parsed).rstrip("/")


def header(value: str, what: str) -> str:
    if not _FITS_A_HEADER.fullmatch(value):
        raise ValueError(f"{what} is empty, or holds what no HTTP header can")
    return value


def segment(identifier: str) -> str:
    """An id as a part of a path, whatever it holds.

    :raises ValueError: if the path would be another call's.
    """
    if identifier in ("", ".", ".."):
        raise ValueError(f"{identifier!r} is no id")
    return quote(identifier, safe="")


def time_text(value: Any, name: str) -> Any:
    """A day or an aware `datetime` in ISO 8601; everything else stays as it is."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{name} has no time zone")
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"{name} is out of range") from None
        return value.replace(tzinfo=None).isoformat() + "Z"
    return value.isoformat() if isinstance(value, date) else value
