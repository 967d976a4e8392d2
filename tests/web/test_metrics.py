"""`/metrics`: who is answered, and with what numbers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from shutil import which
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from app import create_app
from receiver import metrics
from receiver.errors import StoreUnavailable
from receiver.figures import Told, look
from receiver.metrics import METRICS, PREFIX
from receiver.parts import Receiver
from receiver.store import Store
from receiver.times import DAY, SECOND, iso
from receiver.web.metrics import render
from tests.conftest import Clock, Provider
from tests.payloads import envelope, sms
from tests.server import cannot_run, eventually, quick
from tests.shortage import threads_allowed

TOKEN = "a-token-of-24-characters"

#: By name and labels, without the prefix.
Samples = dict[tuple[str, ...], float]


def read(text: str) -> Samples:
    order = ["provider", "type", "kind", "handler", "end"]  # the format has none
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            names = sorted(sample.labels, key=lambda n: order.index(n) if n in order else 9)
            labels = (sample.labels[name] for name in names)
            found[sample.name.removeprefix(PREFIX), *labels] = sample.value
    return found


def text_of(receiver: Receiver) -> bytes:
    store = receiver.store
    return render(Told(store.counters(), look(store, receiver.now()), 1.5))


def numbers(receiver: Receiver) -> Samples:
    """What a process tells once all that was counted is in the store."""
    return read(text_of(receiver).decode())


def event(name: str, kind: str = "sms.sent", **changes: Any) -> dict[str, Any]:
    state = kind.removeprefix("sms.")
    data = sms(state, message_id=f"msg_{name}") if kind.startswith("sms.") else {}
    return envelope(kind, data, event_id=f"evt_{name}") | changes


@pytest.fixture
def service(environ: dict[str, str], clock: Clock) -> Iterator[Callable[..., SimpleNamespace]]:
    """Further services on the same database."""
    made: list[Flask] = []

    def make(**settings: str) -> SimpleNamespace:
        app = create_app({**environ, **settings}, clock)
        made.append(app)
        receiver: Receiver = app.extensions["receiver"]
        receiver.store.migrate()
        client = app.test_client()
        return SimpleNamespace(receiver=receiver, client=client, post=Provider(client).post)

    yield make
    for app in made:
        app.extensions["receiver"].counting.stop()
        app.extensions["metrics"].stop()
        app.extensions["receiver"].store.close()


# --- who is answered


def ask(client: FlaskClient, headers: dict[str, str] | None = None, peer: str = "127.0.0.1") -> int:
    answer = client.get("/metrics", headers=headers, environ_overrides={"REMOTE_ADDR": peer})
    return answer.status_code


def test_the_token_is_asked_for(service: Callable[..., SimpleNamespace]) -> None:
    client = service(METRICS_TOKEN=TOKEN).client
    for shown, status in {
        f"Bearer {TOKEN}": 200,
        f"bearer  {TOKEN} ": 200,
        "": 401,
        "Bearer": 401,
        "Bearer wrong": 401,
        f"Bearer {TOKEN}x": 401,
        f"Basic {TOKEN}": 401,
        TOKEN: 401,
        "Bearer é\xff": 401,
    }.items():
        for peer in ("127.0.0.1", "203.0.113.9"):
            headers = {"Authorization": shown} if shown else {}
            assert ask(client, headers, peer) == status, shown


def test_a_refusal_says_how_to_ask(service: Callable[..., SimpleNamespace]) -> None:
    answer = service(METRICS_TOKEN=TOKEN).client.get("/metrics")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.content_type == "application/problem+json"
    assert "METRICS_TOKEN" in answer.get_json()["detail"]


def test_without_a_token_only_this_machine_is_answered(
    service: Callable[..., SimpleNamespace],
) -> None:
    client = service().client
    for peer in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert ask(client, {}, peer) == 200, peer
    for peer in ("203.0.113.9", "192.168.1.2", "::ffff:203.0.113.9", "fe80::1", ""):
        assert ask(client, {}, peer) == 403, peer
    for name, value in {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=127.0.0.1",
        "Via": "1.1 tunnel",
        "CF-Connecting-IP": "203.0.113.9",
        "X-Real-IP": "",
    }.items():
        assert ask(client, {name: value}) == 403, name


def test_a_proxy_that_is_believed_makes_nobody_this_machine(
    service: Callable[..., SimpleNamespace],
) -> None:
    client = service(TRUSTED_PROXIES="1").client
    assert ask(client, {"X-Forwarded-For": "127.0.0.1"}, "10.0.0.1") == 403


def test_a_public_service_without_a_token_answers_nobody(
    service: Callable[..., SimpleNamespace],
) -> None:
    client = service(PUBLIC_URL="https://sms.example.com").client
    assert ask(client) == 403
    assert "METRICS_TOKEN" in client.get("/metrics").get_json()["detail"]


def test_slashes_and_methods(service: Callable[..., SimpleNamespace]) -> None:
    client = service().client
    assert client.get("/metrics/").status_code == client.head("/metrics").status_code == 200
    assert client.post("/metrics").status_code == 405


# --- the numbers


@pytest.mark.each_engine
def test_what_happens_is_told(
    app: Flask, receiver: Receiver, provider: Provider, clock: Clock
) -> None:
    assert provider.post(event("1")).status_code == 200
    assert provider.post(event("2", "sms.failed")).status_code == 200
    assert provider.post(event("3", "shop.opened")).status_code == 200
    assert provider.post(event("4", "device.connected")).status_code == 200
    for _ in range(2):
        assert provider.post(event("1")).status_code == 200
    assert provider.post(event("1"), secret="whsec_another_one_of_24").status_code == 401
    assert provider.post(b"[]").status_code == 400
    assert provider.post(b"x" * 300_000).status_code == 413
    assert provider.post(event("1"), path="/webhook/zimsend").status_code == 404
    assert receiver.counting.flush()
    told = numbers(receiver)
    accepted = {key[1:]: n for key, n in told.items() if key[0] == metrics.ACCEPTED and n}
    assert accepted == {
        ("zimsend", "sms.sent"): 1,
        ("zimsend", "sms.failed"): 1,
        ("zimsend", "other"): 1,
        ("zimsend", "device.connected"): 1,
    }
    assert told[metrics.DUPLICATES,] == told[metrics.RETRIES,] == 2
    refused = {key[1]: n for key, n in told.items() if key[0] == metrics.REFUSED}
    assert refused == {"signature": 1, "body": 1, "size": 1, "store": 0, "path": 1}
    assert told[f"{metrics.ACKNOWLEDGED}_count",] == 6
    assert told[f"{metrics.ACKNOWLEDGED}_bucket", "+Inf"] == 6
    assert 0 < told[f"{metrics.ACKNOWLEDGED}_sum",] < 60
    assert (told["messages", "sent"], told["messages", "failed"]) == (1, 1)
    assert told["messages", "delivered"] == told[metrics.EXPIRED,] == 0
    assert told["store_bytes",] > 10_000
    assert [value for key, value in told.items() if key[0] == "build_info"] == [1]


def test_handlers_are_told_of_before_their_first_call(receiver: Receiver, clock: Clock) -> None:
    """Nobody would see the first dead work otherwise: what begins with a 1 has not grown."""
    receiver.worker.step(clock())
    told = numbers(receiver)
    for name in ("first", "second"):
        assert [told[metrics.DELIVERIES, name, end] for end in metrics.ENDS] == [0, 0, 0]
        assert told[f"{metrics.HANDLED}_count", name] == told["work_dead", name] == 0
        assert told["work_due", name] == told["work_oldest_due_seconds", name] == 0


@pytest.mark.each_engine
def test_work_and_its_ends(receiver: Receiver, provider: Provider, clock: Clock) -> None:
    assert provider.post(event("1")).status_code == 200
    clock.time += 90 * SECOND
    told = numbers(receiver)
    assert told["work_due", "first"] == told["work_due", "second"] == 1
    assert told["work_oldest_due_seconds", "first"] == pytest.approx(90, abs=1)

    def settled() -> bool:
        receiver.worker.step(clock())
        return receiver.worker.settled and not receiver.store.owed()

    eventually(settled)
    assert receiver.counting.flush()
    told = numbers(receiver)
    for name in ("first", "second"):
        ends = {end: told[metrics.DELIVERIES, name, end] for end in metrics.ENDS}
        assert ends == {"done": 1, "dead": 0, "failed": 0}
        assert told[f"{metrics.HANDLED}_count", name] == 1
        assert told["work_due", name] == told["work_dead", name] == 0
        assert told["work_oldest_due_seconds", name] == 0


@pytest.mark.each_engine
def test_all_services_tell_the_same_also_after_one_was_killed(
    service: Callable[..., SimpleNamespace],
) -> None:
    one, other = service(), service()
    for number in range(3):
        assert one.post(event(f"one{number}")).status_code == 200
        assert other.post(event(f"other{number}", "sms.failed")).status_code == 200
        assert other.post(event("x"), secret="whsec_another_one_of_24").status_code == 401
    assert one.receiver.counting.flush()
    assert other.receiver.counting.flush()
    before = numbers(one.receiver)
    assert numbers(other.receiver) == before
    assert before[metrics.REFUSED, "signature"] == 3
    assert before[f"{metrics.ACKNOWLEDGED}_count",] == 6

    # Both are killed before their next batch: events have rows, refusals have not.
    assert one.post(event("last")).status_code == 200
    assert other.post(event("x"), secret="whsec_another_one_of_24").status_code == 401
    third = service()
    assert third.post(event("x"), secret="whsec_another_one_of_24").status_code == 401
    assert third.receiver.counting.flush()
    after = numbers(third.receiver)
    assert after[metrics.ACCEPTED, "zimsend", "sms.sent"] == 4
    assert after[metrics.REFUSED, "signature"] == 4
    assert not fallen(before, after)


def test_of_two_processes_the_one_that_is_asked_later_tells_no_less(
    service: Callable[..., SimpleNamespace],
) -> None:
    """However old the figures of each are: a balancer sends one scrape here and the next there."""
    one, other = service(), service()
    told = [read(made.client.get("/metrics").text) for made in (one, other)]
    for number in range(3):
        assert one.post(event(f"{number}")).status_code == 200
        assert one.receiver.counting.flush()
        for made in (one, other):
            told.append(read(made.client.get("/metrics").text))
            assert told[-1][metrics.ACCEPTED, "zimsend", "sms.sent"] == number + 1
            assert not fallen(told[-2], told[-1])


def fallen(before: Samples, after: Samples) -> set[tuple[str, ...]]:
    """The counters that are less than they were, or are no longer told."""
    names = {metric.name for metric in METRICS if metric.kind != "gauge"}
    return {
        key
        for key, value in before.items()
        if key[0].removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") in names
        and after.get(key, 0) < value
    }


@pytest.mark.each_engine
def test_no_counter_falls_when_messages_expire_and_the_clock_moves(
    receiver: Receiver, provider: Provider, clock: Clock
) -> None:
    old = iso(clock.time - 80 * DAY)
    for number in range(3):
        assert provider.post(event(f"{number}", timestamp=old)).status_code == 200
        assert provider.post(event(f"{number}", timestamp=old)).status_code == 200
    assert receiver.counting.flush()
    before = numbers(receiver)
    clock.time -= 400 * DAY
    assert not fallen(before, numbers(receiver))
    clock.time += 600 * DAY
    receiver.store.bury(clock(), [], 0)  # what is owed stays
    while any(receiver.store.expire(clock() - DAY, 5)):
        pass
    after = numbers(receiver)
    assert not fallen(before, after)
    assert after[metrics.EXPIRED,] == after[metrics.DELIVERIES, "first", "dead"] == 3
    assert after["work_dead", "first"] == 0
    assert after["messages", "sent"] == 0
    assert after[metrics.ACCEPTED, "zimsend", "sms.sent"] == 3


def test_what_a_stuck_store_was_counted_as_is_added_when_it_is_back(
    receiver: Receiver, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as meanwhile:
        for method in ("ingest", "add_counts"):
            meanwhile.setattr(type(receiver.store), method, away)
        for _ in range(3):
            assert provider.post(event("1")).status_code == 503
            assert not receiver.counting.flush()
    assert provider.post(event("1")).status_code == 200
    assert receiver.counting.flush()
    told = numbers(receiver)
    assert told[metrics.REFUSED, "store"] == 3
    assert told[f"{metrics.ACKNOWLEDGED}_count",] == 1


# --- a scrape


def test_nobody_waits_for_a_thread_that_cannot_start(
    service: Callable[..., SimpleNamespace],
) -> None:
    made = service()

    def scrape() -> float:
        began = time.monotonic()
        assert made.client.get("/metrics").status_code == 503
        return time.monotonic() - began

    with threads_allowed("figures", 0):
        assert quick(scrape, 1)
    assert made.client.get("/metrics").status_code == 200


def test_a_scrape_never_waits_for_a_store_that_is_away(
    service: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = service()
    first = read(made.client.get("/metrics").text)

    def away(_: Store) -> None:
        raise StoreUnavailable("away")

    for method in ("kept", "counters"):
        monkeypatch.setattr(type(made.receiver.store), method, away)
    again: dict[tuple[str, ...], float] = {}

    def scrape() -> float:
        began = time.monotonic()
        again.update(read(made.client.get("/metrics").text))
        return time.monotonic() - began

    assert quick(scrape, 1)
    age = again.pop(("snapshot_age_seconds",))
    assert age > first.pop(("snapshot_age_seconds",))
    assert again == first


def test_each_metric_of_the_table_is_told(receiver: Receiver) -> None:
    receiver.counting.count(metrics.DELIVERIES, 'odd "name"\n\\', "done")
    assert receiver.counting.flush()
    text = text_of(receiver).decode()
    told = {family.name: family for family in text_string_to_metric_families(text)}
    for metric in METRICS:
        family = told.pop(PREFIX + metric.name.removesuffix("_total"))
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(metric.labels)
    assert not told
    assert read(text)[metrics.DELIVERIES, 'odd "name"\n\\', "done"] == 1


def promtool(*arguments: str, text: bytes = b"") -> None:
    program = which("promtool")
    if program is None:
        cannot_run("no promtool here (Debian: apt install prometheus)")
    ran = subprocess.run([program, *arguments], input=text, capture_output=True, timeout=20)
    assert (ran.returncode, ran.stderr) == (0, b""), (ran.stdout + ran.stderr).decode()


def test_promtool_finds_nothing_wrong(receiver: Receiver, provider: Provider) -> None:
    assert provider.post(event("1")).status_code == 200
    receiver.worker.step(receiver.now())
    assert receiver.counting.flush()
    promtool("check", "metrics", text=text_of(receiver))
