"""The examples of the documents do what is said of them."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlite_utils import Database

from receiver import ConfigError, Event, HandlerError, Registry
from receiver.first_steps import write_settings
from receiver.providers.zimsend.samples import sample
from tests.conftest import SECRET
from tests.docs.markdown import Page
from tests.server import ROOT, Server

HTTP = "docs/reference/http.md"


def example(page: str) -> dict[str, Any]:
    """Run the Python file that a page shows, as a module of the name in its first line."""
    (text,) = (block.text for block in Page(ROOT, ROOT / page).blocks if block.language == "python")
    name = text.partition(".py\n")[0].removeprefix("# ")
    namespace = {"__name__": name}
    exec(compile(text, f"{page}: {name}.py", "exec"), namespace)
    return namespace


def event(event_type: str) -> Event:
    moment = datetime(2026, 11, 20, 8, 15, 42, tzinfo=UTC)
    ids = {"event_id": "evt_1", "message_id": "msg_1"}
    now = int(moment.timestamp()) * 1_000_000
    return Event(
        id=ids["event_id"],
        type=event_type,
        occurred_at=moment,
        received_at=moment,
        message_id=ids["message_id"],
        source="webhook",
        late=False,
        redacted=False,
        raw=sample(event_type, to="+33612345678", now=now, **ids),
        attempt=1,
    )


def test_the_first_handler(caplog: pytest.LogCaptureFixture) -> None:
    module, registry = example("README.md"), Registry()
    module["register"](registry)
    (handler,) = registry
    handler.function(event("sms.failed"))
    readme = Page(ROOT, ROOT / "README.md")
    assert any(f"{module['__name__']}: {caplog.messages[0]}" in b.text for b in readme.blocks)


def test_what_is_run_by_hand_gets_the_secret_of_a_new_service(tmp_path: Path) -> None:
    write_settings(tmp_path / ".env")
    (tmp_path / "by_hand.py").write_text("import os\nprint(os.environ['ZIMSEND_WEBHOOK_SECRET'])\n")
    (command,) = (b.text for b in Page(ROOT, ROOT / HTTP).blocks if "by_hand.py)" in b.text)
    told = subprocess.check_output(["sh", "-e", "-c", command], cwd=tmp_path, text=True)
    assert f"ZIMSEND_WEBHOOK_SECRET={told}" in (tmp_path / ".env").read_text()


def test_the_event_that_is_sent_by_hand(
    serve: Callable[..., Server],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = serve()
    monkeypatch.setenv("ZIMSEND_WEBHOOK_SECRET", SECRET)
    open_url = urllib.request.urlopen

    def open_here(request: urllib.request.Request) -> Any:
        request.full_url = request.full_url.replace(":3000", f":{server.port}")
        return open_url(request, timeout=20)

    monkeypatch.setattr(urllib.request, "urlopen", open_here)
    example(HTTP)
    assert json.loads(capsys.readouterr().out) == {"status": "accepted", "event_id": "evt_by_hand"}
    (stored,) = server.events()
    assert (stored["type"], stored["error_code"]) == ("sms.failed", "INVALID_NUMBER")


def test_the_example_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    module, registry = example("docs/how-to/write-a-handler.md"), Registry()
    monkeypatch.delenv("TEAM_URL", raising=False)
    with pytest.raises(ConfigError, match="TEAM_URL"):
        module["register"](registry)
    monkeypatch.setenv("TEAM_URL", "https://team.example.com/sms")
    module["register"](registry)
    (handler,) = registry
    page = Page(ROOT, ROOT / "docs/how-to/write-a-handler.md")
    assert f".venv/bin/flask try {handler.name} ID" in page.spans
    assert f"`{handler.name}`" in (ROOT / "docs/reference/handlers.md").read_text()
    assert handler.wants("sms.failed")

    requests: list[dict[str, Any]] = []
    status = 200

    def post(url: str, **request: Any) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status, request=httpx.Request("POST", url))

    monkeypatch.setattr(httpx, "post", post)
    handler.function(event("sms.failed"))
    assert requests[0]["headers"] == {"Idempotency-Key": "evt_1"}
    assert requests[0]["json"] == {
        "to": "+33612345678",
        "reason": "INVALID_NUMBER",
        "order": "CMD-1042",
    }
    status = 429
    with pytest.raises(HandlerError) as busy:
        handler.function(event("sms.failed"))
    assert (busy.value.retry_after, busy.value.permanent) == (60, False)
    status = 422
    with pytest.raises(HandlerError) as refused:
        handler.function(event("sms.failed"))
    assert refused.value.permanent
    status = 500
    with pytest.raises(httpx.HTTPStatusError):
        handler.function(event("sms.failed"))


def test_the_example_that_is_told_of_dead_work(caplog: pytest.LogCaptureFixture) -> None:
    module, registry = example("docs/how-to/dead-work.md"), Registry()
    module["register"](registry)
    (tell,) = registry.dead_functions
    tell(Event.sample("sms.failed"), "my_handlers.alert_team", "ValueError: x")
    assert caplog.messages == [
        "my_handlers.alert_team has given up sms.failed of message msg_sample"
    ]


def test_the_idempotent_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module, registry = example("docs/how-to/handler-once.md"), Registry()
    shop = Database("shop.db")
    try:
        shop["orders"].insert({"id": "CMD-1042", "delivered": 0}, pk="id")
        module["register"](registry)
        (handler,) = registry
        for _ in range(3):
            handler.function(event("sms.delivered"))
        assert list(shop["orders"].rows) == [{"id": "CMD-1042", "delivered": 1}]
    finally:
        shop.close()
