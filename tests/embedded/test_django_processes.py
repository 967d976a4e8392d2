"""A Django project as it runs in production: gunicorn, and `manage.py zimsend work` beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

pytest.importorskip("django", reason="NOT TESTED HERE: there is no Django")

from playwright.sync_api import sync_playwright

from receiver.providers.zimsend.webhook import sign
from tests.conftest import SECRET
from tests.embedded import djangos
from tests.embedded.asked import alone, compare
from tests.payloads import envelope, sms
from tests.postgres import PostgresServer
from tests.server import cannot_run, eventually, free_port
from tests.web.dashboard.browser import CHROMIUM, PATIENCE, Watch

PREPARE = """
import django
from django.core.management import call_command
django.setup()
call_command("migrate", "django_host", run_syncdb=True, verbosity=0)
call_command("zimsend", "migrate")
"""
WSGI = ("--threads", "8", "django.core.wsgi:get_wsgi_application()")
ASGI = ("--worker-class", "asgi", "django.core.asgi:get_asgi_application()")


@contextmanager
def running(folder: Path, environ: dict[str, str], *arguments: str) -> Iterator[None]:
    """A process of the project's, until the end of the block."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def project(folder: Path, *served: str, **environ: str) -> Iterator[httpx.Client]:
    """The project, served by gunicorn; whoever asks it is at the receiver's prefix.

    :param served: gunicorn's options, and the application.
    """
    (folder / "sms").mkdir(exist_ok=True)
    variables = djangos.environ(folder, **environ)
    subprocess.run([sys.executable, "-c", PREPARE], cwd=folder, env=variables, check=True)
    port = free_port()
    gunicorn = ("-m", "gunicorn", "--no-control-socket", "--bind", f"127.0.0.1:{port}", *served)
    worker = ("-m", "tests.embedded.django_host.manage", "zimsend", "work")
    with (
        running(folder, variables, *gunicorn),
        running(folder, variables, *worker),
        httpx.Client(base_url=f"http://127.0.0.1:{port}/sms", timeout=10) as client,
    ):
        eventually(lambda: answers(client))
        yield client


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def send(client: httpx.Client, event: dict[str, Any]) -> None:
    """As a provider does: until it is acknowledged."""
    body = json.dumps(event).encode()
    headers = {"X-Webhook-Signature": sign(SECRET.encode(), body)}

    def acknowledged() -> bool:
        try:
            return client.post("/webhooks/zimsend", content=body, headers=headers).is_success
        except httpx.TransportError:
            return False

    eventually(acknowledged)


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


def test_a_thousand_orders_are_right_though_the_database_restarts(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """The handlers' connections, which the project never closes by itself, break in the middle."""
    ends = {f"m{number}": ("delivered", "failed")[number % 2] for number in range(1_000)}
    with (
        project(
            tmp_path,
            *WSGI,
            HOST_POSTGRES=f"127.0.0.1:{postgres.port}/postgres",
            HOST_RECEIVER=postgres.url,
        ) as client,
        ThreadPoolExecutor(8) as providers,
    ):
        events = [envelope(f"sms.{end}", sms(end, message_id)) for message_id, end in ends.items()]
        sent = [providers.submit(send, client, event) for event in events[:700]]
        eventually(lambda: len(orders(postgres)) > 300)
        postgres.stop(signal.SIGINT)
        postgres.start()
        sent += [providers.submit(send, client, event) for event in events[700:]]
        for each in sent:
            each.result()
        eventually(lambda: orders(postgres) == ends)
    with psycopg.connect(postgres.url) as connection:  # the receiver keeps its tables apart
        assert connection.execute("SELECT count(*) FROM zimsend.events").fetchone() == (len(ends),)


def orders(postgres: PostgresServer) -> dict[str, str]:
    with psycopg.connect(postgres.url) as connection:
        return dict(connection.execute("SELECT message_id, status FROM django_host_order"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """By an asynchronous server, with all walls of the project around."""
    with project(tmp_path_factory.mktemp("served"), *ASGI) as client:
        yield client


def test_everything_is_answered_as_it_is_alone(served: httpx.Client, tmp_path: Path) -> None:
    djangos.set_up()
    from tests.embedded.django_host.settings import ZIMSEND

    settings = {**ZIMSEND, "DATABASE_URL": f"sqlite:///{tmp_path / 'receiver.db'}"}
    port = served.base_url.port
    assert port
    with alone(settings) as service:
        compare(partial(djangos.over_http, port), service)


def test_the_dashboard_is_all_below_the_prefix_in_a_browser(served: httpx.Client) -> None:
    if CHROMIUM is None:
        cannot_run("there is no Chromium, so no page was seen in a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_context(base_url=str(served.base_url), locale="en").new_page()
        page.set_default_timeout(PATIENCE)
        watch = Watch(page, str(served.base_url))
        send(served, envelope("sms.failed", sms("failed", "m1"), event_id="evt_first"))

        page.goto("messages/m1")
        page.locator("#password").fill("corrêct horse battery staple")
        page.keyboard.press("Enter")
        page.wait_for_url("**/sms/messages/m1")
        page.get_by_role("link", name="evt_first").first.click()
        page.wait_for_url("**/sms/events/evt_first")
        eventually(lambda: page.reload() and page.locator(".work button").count())
        page.locator(".work button").click()
        page.get_by_role("status").wait_for()

        page.clock.install()
        page.get_by_role("navigation").first.get_by_role("link", name="Live").click()
        send(served, envelope("sms.sent", sms("sent", "m2"), event_id="evt_second"))
        page.clock.run_for(2_000)
        page.get_by_text("evt_second").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/sms/sign-in")
        assert watch.told == []
        browser.close()
