"""A Django project as it runs in production: gunicorn, and `manage.py zimsend work` beside it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

pytest.importorskip("django", reason="NOT TESTED HERE: there is no Django")

from receiver.providers.zimsend.webhook import sign
from tests.conftest import SECRET
from tests.embedded import djangos
from tests.payloads import envelope, sms
from tests.postgres import PostgresServer
from tests.server import eventually, free_port

PREPARE = """
import django
from django.core.management import call_command
django.setup()
call_command("migrate", "django_host", run_syncdb=True, verbosity=0)
call_command("zimsend", "migrate")
"""


@contextmanager
def running(
    folder: Path, environ: dict[str, str], *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the project's, ended by SIGTERM as a host does it."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environ, stdout=log, stderr=log
        )
    try:
        yield process
        process.terminate()
        process.wait(20)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def project(folder: Path, *options: str, **environ: str) -> Iterator[httpx.Client]:
    """The project, served; whoever asks it is at the receiver's prefix."""
    (folder / "sms").mkdir(exist_ok=True)
    variables = djangos.environ(folder, **environ)
    subprocess.run([sys.executable, "-c", PREPARE], cwd=folder, env=variables, check=True)
    port = free_port()
    gunicorn = ("-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--threads", "8", *options)
    worker = ("-m", "tests.embedded.django_host.manage", "zimsend", "work")
    with (
        running(folder, variables, *gunicorn, "django.core.wsgi:get_wsgi_application()"),
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
            HOST_POSTGRES=f"127.0.0.1:{postgres.port}/postgres",
            HOST_RECEIVER=postgres.url,
        ) as client,
        ThreadPoolExecutor(8) as providers,
    ):
        sent = [
            providers.submit(send, client, envelope(f"sms.{end}", sms(end, message_id)))
            for message_id, end in ends.items()
        ]
        eventually(lambda: len(orders(postgres)) > 300)
        postgres.stop(signal.SIGINT)
        postgres.start()
        for each in sent:
            each.result()
        eventually(lambda: len(orders(postgres)) == len(ends))
    assert orders(postgres) == ends


def orders(postgres: PostgresServer) -> dict[str, str]:
    with psycopg.connect(postgres.url) as connection:
        return dict(connection.execute("SELECT message_id, status FROM django_host_order"))
