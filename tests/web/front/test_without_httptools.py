"""Real gunicorns on a machine that has no httptools, or no uvloop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.handlers import seen
from tests.payloads import envelope, sms
from tests.server import ROOT, Server, eventually, requirements

WARNING = "httptools cannot be imported"


@pytest.fixture
def serve_without(serve: Callable[..., Server], tmp_path: Path) -> Callable[..., Server]:
    """Start a service in whose processes a module cannot be imported."""

    def start(module: str, **settings: str) -> Server:
        folder = tmp_path / "blocked"
        folder.mkdir()
        # Python imports this at its start.
        (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules[{module!r}] = None\n")
        return serve(PYTHONPATH=f"{folder}:{ROOT}", **settings)

    return start


def threads_serve(server: Server) -> bool:
    """gunicorn's own servers name themselves."""
    return server.client.get("/healthz").headers.get("Server") == "gunicorn"


def test_without_httptools_threads_give_the_same_answers(
    serve_without: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve_without("httptools", WEB_CONCURRENCY="2", SEEN=str(tmp_path))
    assert threads_serve(server)
    event = envelope("sms.sent", sms("sent"))
    for status in ("accepted", "duplicate"):
        answer = server.post(event)
        assert answer.status_code == 200
        assert answer.json() == {"status": status, "event_id": event["event_id"]}
    refused = server.post(event, **{"X-Webhook-Signature": "0" * 64})
    assert refused.status_code == 401
    assert refused.headers["Content-Type"] == "application/problem+json"
    eventually(lambda: all(len(seen(tmp_path, name)) == 1 for name in ("first", "second")))
    # Once, and not by each process.
    assert server.log.read_text().count(WARNING) == 1
    assert server.terminate() == 0


def test_without_httptools_a_stop_waits_for_what_runs_and_gives_back_the_rest(
    serve_without: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve_without("httptools", HANDLERS="tests.slow", SEEN=str(tmp_path))
    assert threads_serve(server)
    events = [envelope("sms.sent", sms("sent")) for _ in range(6)]
    for event in events:
        assert server.post(event).status_code == 200
    eventually(lambda: seen(tmp_path, "began"))
    assert server.terminate() == 0
    began = {e["id"] for e in seen(tmp_path, "began")}
    assert 0 < len(began) < len(events)
    assert began == {e["id"] for e in seen(tmp_path, "ended")}
    attempts = {e["event_id"]: e["deliveries"][0]["attempts"] for e in server.events()}
    assert attempts == {e["event_id"]: int(e["event_id"] in began) for e in events}


def test_without_uvloop_there_is_an_event_loop_all_the_same(
    serve_without: Callable[..., Server],
) -> None:
    server = serve_without("uvloop")
    assert not threads_serve(server)
    assert server.post(envelope("sms.sent", sms("sent"))).status_code == 200
    assert WARNING not in server.log.read_text()
    assert server.terminate() == 0


@pytest.mark.parametrize(
    ("machine", "system", "python", "missing"),
    [
        ("x86_64", "linux", "CPython", set()),
        ("aarch64", "linux", "CPython", set()),
        ("arm64", "darwin", "CPython", set()),
        ("armv6l", "linux", "CPython", {"httptools", "uvloop", "binary"}),
        ("armv7l", "linux", "CPython", {"httptools", "uvloop", "binary"}),
        ("AMD64", "win32", "CPython", {"uvloop"}),
        ("x86_64", "linux", "PyPy", {"uvloop"}),
    ],
)
def test_only_what_has_wheels_is_required(
    machine: str, system: str, python: str, missing: set[str]
) -> None:
    here = {
        "platform_machine": machine,
        "sys_platform": system,
        "platform_python_implementation": python,
    }
    required = [r for r in requirements() if r.marker is None or r.marker.evaluate(here)]
    names = [r.name for r in required]
    assert len(names) == len(set(names))
    assert "psycopg" in names
    installed = {*names, *(extra for r in required for extra in r.extras)}
    assert {"httptools", "uvloop", "binary"} - installed == missing
