"""Everything that can be wrong with a service, looked at before it is: for `flask doctor`.

Each check has a thread of its own and a limit of time, so that a network that hangs, or a database,
holds up nobody. Nothing is changed by them.
"""

from __future__ import annotations

import json
import queue
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import httpx

from receiver import times
from receiver.config import is_loopback, unknown_in
from receiver.errors import ReceiverError
from receiver.event import reject
from receiver.outgoing import http_client, read_at_most, time_limit
from receiver.parts import Receiver
from receiver.providers import PROVIDERS
from receiver.providers.errors import ProviderError, TryLater
from receiver.providers.zimsend.api.answers import Webhook
from receiver.refusals import last_noted
from receiver.worker import is_held, last_heartbeat, stuck_handlers, warnings_of_handlers

State = Literal["ok", "warning", "wrong"]

#: Seconds that a check may take, all of them beside each other; and one request to others.
LIMIT = 15.0
_REQUEST = 5.0

#: Microseconds by which a clock may be wrong: it is told, and it is a problem.
_CLOCK_TOLD, _CLOCK_WRONG = 5 * times.SECOND, times.MINUTE
#: Parts of a disk, and bytes, that should be free; and bytes that must be.
_FREE_PART, _FREE, _LEAST_FREE = 0.1, 256 * 1024 * 1024, 32 * 1024 * 1024
#: Microseconds without a sign of life of whoever runs handlers; since a refusal that is told; for
#: which work that is due may wait.
_SILENT, _LATELY, _OLDEST = 30 * times.SECOND, times.DAY, 15 * times.MINUTE

#: What a webhook at ZimSend should be told of.
_EVENTS = ("sms.sent", "sms.delivered", "sms.failed")
_ENABLED = frozenset({"", "active", "enabled", "ok"})
_HEALTHY = {"status": "ok"}


class Finding(NamedTuple):
    """What a check has found.

    :param told: what is so, in one line; never a secret.
    :param advice: what to do; empty where there is nothing to do.
    """

    check: str
    state: State
    told: str
    advice: str = ""


#: What is found without the name of the check.
Found = Iterable[tuple[Any, ...]]
Check = Callable[[Receiver], Found]


def look(
    receiver: Receiver, checks: Sequence[tuple[str, Check]] | None = None, limit: float = LIMIT
) -> Iterator[Finding]:
    """All findings, in the order of the checks.

    :param limit: seconds for all of it.
    """
    checks = checks_of(receiver) if checks is None else checks
    ends = time.monotonic() + limit
    answers: list[queue.SimpleQueue[list[Finding]]] = []
    for name, check in checks:
        answer: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()
        answers.append(answer)
        threading.Thread(
            target=lambda n=name, c=check, a=answer: a.put(_findings(n, c, receiver)),
            name=f"check {name}",
            daemon=True,
        ).start()
    for (name, _), answer in zip(checks, answers, strict=True):
        try:
            yield from answer.get(timeout=max(0.0, ends - time.monotonic()))
        except queue.Empty:
            yield Finding(
                name,
                "wrong",
                f"nobody knows: it took longer than {limit:.0f} s",
                "see whether the network or the database hangs",
            )


def _findings(name: str, check: Check, receiver: Receiver) -> list[Finding]:
    try:
        return [Finding(name, *found) for found in check(receiver)]
    except ReceiverError as error:
        return [Finding(name, "wrong", str(error), "do what it says, and look again")]
    except Exception as error:  # its words may hold what was read
        told = f"it cannot be looked at, by a defect: {type(error).__name__}"
        return [Finding(name, "wrong", told, "report this")]


def checks_of(receiver: Receiver) -> list[tuple[str, Check]]:
    """Those that this service's settings make sense for."""
    checks: list[tuple[str, Check]] = [
        ("settings", settings),
        ("database", database),
        ("disk", disk),
        ("clock", clock),
        ("public address", public_address),
    ]
    for name in sorted({*receiver.senders, *receiver.reconciliations}):
        checks.append((f"account {name}", _account(name)))
        checks.append((f"clock of {name}", _clock_of(name)))
    if "zimsend" in receiver.senders:
        checks.append(("webhook", webhook))
    return [*checks, ("handlers", handlers), ("refusals", refusals)]


# --- this machine


def settings(receiver: Receiver) -> Found:
    """They can be read, or the command would not have begun."""
    environment = receiver.environment
    unknown = unknown_in(environment)
    for line in unknown:
        yield "warning", line, "correct its name, or remove it"
    if not unknown:
        source = "the environment" if environment.file is None else str(environment.file)
        yield "ok", f"all are understood, from {source}"
    set_up = [p.title for p in PROVIDERS.values() if p.is_set_up(receiver.config)]
    yield "ok", f"providers that are set up: {', '.join(set_up)}"


def database(receiver: Receiver) -> Found:
    """It has the schema of this release, and takes what is to be stored."""
    store = receiver.store
    engine = store.engine()
    store.prove_writable()
    try_to_store(receiver, receiver.now(), 2.5)
    yield "ok", f"{engine.title} takes events, and has the schema of this release"
    warning = store.warning()
    if warning is not None:
        yield "warning", warning, "do what it says"


def disk(receiver: Receiver) -> Found:
    """There is room for what comes."""
    file = receiver.store.engine().file
    if file is None:
        yield "ok", "the database is on another server; look there for its room"
        return
    size = 0
    for name in (file, f"{file}-wal"):
        with suppress(OSError):
            size += Path(name).stat().st_size
    try:
        room = shutil.disk_usage(Path(file).parent)
    except OSError as error:
        yield "wrong", f"{Path(file).parent}: {error.strerror}", "correct DATABASE_URL"
        return
    told = f"{_bytes(room.free)} of {_bytes(room.total)} are free; the database has {_bytes(size)}"
    if room.free < _LEAST_FREE:
        yield "wrong", told, "make room now: without it nothing can be stored"
    elif room.free < _FREE or room.free < _FREE_PART * room.total:
        yield "warning", told, "make room, or lower RETENTION_DAYS"
    else:
        yield "ok", told


def clock(receiver: Receiver) -> Found:
    """It is later than this release, and the database's server agrees."""
    now = receiver.now()
    if now < times.RELEASED:
        yield "wrong", f"it is {times.iso(now)} here, before this release was made", _SET_CLOCK
        return
    theirs = receiver.store.engine().clock
    if theirs is None:
        yield "ok", f"it is {times.iso(now)}"
    else:
        yield _compared(theirs - receiver.now(), "the database's server")


_SET_CLOCK = "set the clock, best by NTP"


def _compared(ahead: int, whose: str) -> tuple[Any, ...]:
    """What to say of a clock that is ahead of ours by so many microseconds."""
    apart = abs(ahead)
    if apart < _CLOCK_TOLD:
        return "ok", f"{whose} has the same time as this machine"
    told = f"{whose} is {apart / times.SECOND:,.0f} s {'ahead of' if ahead > 0 else 'behind'} us"
    return "wrong" if apart >= _CLOCK_WRONG else "warning", told, f"{_SET_CLOCK}, here or there"


def handlers(receiver: Receiver) -> Found:
    """Somebody runs them, and they keep up."""
    store, now = receiver.store, receiver.now()
    names = [handler.name for handler in receiver.registry]
    beat = last_heartbeat(store)
    start = "start the service, or `flask work` where EMBEDDED_WORKER=0"
    if beat is None:
        yield "wrong", "nothing has ever run the handlers", start
    elif abs(now - beat) > _SILENT:
        yield "wrong", f"nothing has run the handlers since {times.iso(beat)}", start
    else:
        yield "ok", f"they run, {len(names)} of them"
    if is_held(store):
        yield "warning", "they wait since a restore", "let them run: `flask restore --run-work`"
    if stuck := stuck_handlers(store, now):
        yield "wrong", f"stuck: {', '.join(stuck)}", "see what they wait for, and restart"
    waiting, age = store.backlog(now, names)
    if age > _OLDEST and not is_held(store):
        told = f"{waiting:,} work items wait, the oldest for {age / times.MINUTE:,.0f} minutes"
        yield "wrong", told, "see in the log why the handlers do not keep up"
    dead = [f"{number:,} of {name}" for name, number, _ in store.troubles(now, names) if number]
    if dead:
        told = f"work was given up: {', '.join(dead)}"
        yield "warning", told, "see `flask events list --state dead`, then `flask replay --failed`"
    for told in warnings_of_handlers(store, now, names):
        yield "warning", told, "set HANDLERS alike everywhere, or wait until it is buried"


def refusals(receiver: Receiver) -> Found:
    """The last requests that were not let in."""
    last = last_noted(receiver.store, receiver.now(), _LATELY)
    if last is None:
        yield "ok", "none in the last day"
    else:
        yield (
            "warning",
            f"{times.iso(last[0])}: {last[1]}",
            "give a body and its signature to `flask doctor BODYFILE --signature S`",
        )


# --- the network


def public_address(receiver: Receiver) -> Found:
    """It leads here."""
    url = receiver.config.public_url
    if url is None:
        told = "PUBLIC_URL is not set, so nobody knows how providers reach this service"
        yield "warning", told, "set it to the https address of this service"
        return
    try:
        status, _, body = _get(f"{url}/healthz")
    except httpx.HTTPError as error:
        told = f"{url} cannot be reached from here: {_said(error)}"
        yield "wrong", told, "start the service, and look at DNS, certificate and proxy"
        return
    if 300 <= status < 400:
        told = f"{url}/healthz answers with a redirect ({status})"
        yield "wrong", told, "set PUBLIC_URL to where it leads: providers follow no redirects"
    elif status != 200 or not _is_healthy(body):
        told = f"{url}/healthz answers {status}, and not as this service does"
        yield "wrong", told, "set PUBLIC_URL to this service, or correct the proxy in front"
    else:
        yield "ok", f"{url} leads to this service"


def _account(name: str) -> Check:
    def check(receiver: Receiver) -> Found:
        title = PROVIDERS[name].title
        try:
            _prove(receiver, name)
        except TryLater as error:
            yield "warning", f"{title} could not be asked: {error.message}", "look again later"
        except ProviderError as error:
            yield "wrong", f"{title}: {_without_advice(error)}", error.advice
        else:
            yield "ok", f"{title} accepts the credentials"

    return check


def _prove(receiver: Receiver, name: str) -> None:
    """Make a call for which the credentials must be right, and which changes nothing."""
    sender = receiver.senders.get(name)
    if sender is not None:
        _PROVE[name](sender.client.within(timeout=_REQUEST, patience=_REQUEST))
    else:
        account = receiver.reconciliations[name].account
        account.within(tries=1, patience=_REQUEST, budget=account.budget).probe()


#: Of what may be sent through.
_PROVE: dict[str, Callable[[Any], object]] = {
    "zimsend": lambda client: client.webhooks(),
    "smscx": lambda client: client.reports(limit=1),
    "sipgate": lambda client: client.userinfo(),
}


def _without_advice(error: ProviderError) -> str:
    return str(error).removesuffix(f". {error.advice}")


def _clock_of(name: str) -> Check:
    def check(receiver: Receiver) -> Found:
        url = getattr(receiver.config, _API_URLS[name])
        title = PROVIDERS[name].title
        if is_loopback(urlsplit(url).hostname or ""):
            yield "ok", f"{title} is simulated on this machine, by whatever clock it has"
            return
        try:
            asked_at = receiver.now()
            _, headers, _ = _get(url)
            told = parsedate_to_datetime(headers.get("date", ""))
        except (httpx.HTTPError, ValueError):
            yield "warning", f"{title} does not say what time it has", "look again later"
            return
        theirs = int(told.timestamp()) * times.SECOND
        # It has no fraction of a second, and was written while we waited.
        yield _compared(_outside(theirs, asked_at, receiver.now()), title)

    return check


def _outside(theirs: int, first: int, last: int) -> int:
    """By how much a time that was told in whole seconds is not between two others."""
    if theirs + times.SECOND < first:
        return theirs + times.SECOND - first
    return max(0, theirs - last)


_API_URLS = {"zimsend": "api_url", "smscx": "smscx_api_url", "sipgate": "sipgate_api_url"}


def webhook(receiver: Receiver) -> Found:
    """ZimSend reports to this service, once, all that it should."""
    url = receiver.config.webhook_url
    if url is None:
        told = "without PUBLIC_URL nobody can tell whether ZimSend reports here"
        yield "warning", told, "set PUBLIC_URL"
        return
    assert receiver.zimsend is not None
    try:
        there = [
            w
            for w in receiver.zimsend.within(timeout=_REQUEST, patience=_REQUEST).webhooks()
            if w.url == url
        ]
    except ProviderError as error:
        yield "warning", f"it cannot be asked for: {error.message}", "see the account above"
        return
    yield from _registered(there, url)


def _registered(there: Sequence[Webhook], url: str) -> Found:
    enabled = [w for w in there if (w.status or "").lower() in _ENABLED]
    if not there:
        yield "wrong", f"none reports to {url}", "run `flask webhooks register`"
        return
    if not enabled:
        told = f"{there[0].webhook_id} reports to {url}, and is {there[0].status}"
        yield "wrong", told, "enable it in ZimSend's dashboard"
        return
    if len(enabled) > 1:
        named = ", ".join(str(w.webhook_id) for w in enabled)
        told = f"several report to {url}: {named}"
        yield "warning", told, "delete all but one: `flask webhooks delete ID`"
    told_of = {event for w in enabled for event in w.events}
    missing = [event for event in _EVENTS if event not in told_of]
    if told_of and "*" not in told_of and missing:
        told = f"ZimSend does not report {', '.join(missing)}"
        yield "warning", told, "delete it, and run `flask webhooks register`"
    else:
        yield "ok", f"{enabled[0].webhook_id} reports to {url}"


def _get(url: str) -> tuple[int, httpx.Headers, bytes]:
    with (
        time_limit(_REQUEST),
        http_client(timeout=_REQUEST) as client,
        client.stream("GET", url) as answer,
    ):
        return answer.status_code, answer.headers, read_at_most(answer, 1_000)


def _is_healthy(body: bytes) -> bool:
    try:
        return bool(json.loads(body) == _HEALTHY)
    except ValueError:
        return False


def _said(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _bytes(count: int) -> str:
    if count < 1024**3:
        return f"{count / 1024**2:,.1f} MB"
    return f"{count / 1024**3:,.1f} GB"


# --- for readiness as well


def try_to_store(receiver: Receiver, now: int, patience: float) -> None:
    """Prove that what ingest writes can be written, by an event that is taken back: a right may be
    missing on one table, or somebody may hold a lock on it.

    :param patience: seconds to wait for others' locks.
    :raises StoreUnavailable: if it cannot.
    """
    name = f"readiness-{secrets.token_hex(8)}"
    provider = next(iter(PROVIDERS.values()))
    body = provider.sample("sms.sent", event_id=name, message_id=name, to="+33600000000", now=now)
    (item,) = provider.parse(body, received_at=now, retention=receiver.config.retention)
    unusable = reject(name.encode(), "a trial", received_at=now)
    # Twice: a copy is counted, which is another statement.
    items = (item, item, unusable)
    receiver.store.try_ingest(items, lambda _: ["readiness"], patience)
