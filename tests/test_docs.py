"""The documents say what the code does: tables, examples, links."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from flask import Flask
from sqlite_utils import Database

import handlers
from handlers import email, forward
from receiver import ConfigError, Event, HandlerError, Registry, config
from receiver.providers.zimsend.samples import SAMPLES, sample
from tests.server import ROOT

README = (ROOT / "README.md").read_text()
DOCUMENTS = (
    "README.md",
    "CHANGELOG.md",
    "docs/design.md",
    "docs/forget.md",
    "docs/metrics.md",
    "docs/providers.md",
    "docs/dashboard.md",
)


def section(heading: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    found = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", README, re.MULTILINE | re.DOTALL
    )
    assert found, f"README has no section {heading!r}"
    return found[2]


def table(heading: str) -> list[list[str]]:
    """The cells of a section's first table, without its head."""
    rows = []
    for line in section(heading).splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif rows:
            break
    assert len(rows) > 2, f"README's section {heading!r} has no table"
    return [[cell.strip("| ") for cell in row] for row in rows[2:]]


def code(cell: str) -> str:
    """What stands between the backticks."""
    found = re.fullmatch(r"`([^`]+)`", cell)
    assert found, f"{cell!r} should be code"
    return found[1]


# --- tables


def test_settings() -> None:
    expected: dict[str, str] = {s.name: s.default for s in config.SETTINGS}
    expected |= dict.fromkeys((*forward.SETTINGS, *email.SETTINGS), "")
    expected["EMAIL_EVENTS"] = email.DEFAULT_EVENTS
    words = {"not set": ""}
    documented = {
        code(name): words[default] if default in words else code(default)
        for name, default, _meaning in table("Settings")
    }
    assert documented == expected


def commands_of(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield name, command
            for below, subcommand in commands_of(command):
                yield f"{name} {below}", subcommand
        else:
            yield name, command


def test_commands_and_their_options(app: Flask) -> None:
    registered = {
        path: {o for p in command.params if isinstance(p, click.Option) for o in p.opts}
        for path, command in commands_of(app.cli)
    }
    documented = {}
    for usage, _meaning in table("Commands"):
        found = re.fullmatch(r"flask ([a-z-]+(?: [a-z]+)?)\b(.*)", code(usage))
        assert found, usage
        documented[found[1]] = set(re.findall(r"--[a-z-]+", found[2]))
    assert documented == registered


def test_built_in_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARD_URL", "https://example.com")
    monkeypatch.setenv("FORWARD_SECRET", "whsec_" + "QUJD" * 8)
    monkeypatch.setenv("EMAIL_URL", "smtp://127.0.0.1")
    monkeypatch.setenv("EMAIL_TO", "ops@example.com")
    registry = Registry()
    handlers.register(registry)
    documented = [
        (code(name), code(module), code(events))
        for name, module, events, _does in table("Built-in handlers")
    ]
    registered = [
        (h.name, defined_in(h.function).removeprefix("receiver."), ", ".join(h.patterns))
        for h in registry
    ]
    assert documented == registered


def defined_in(function: object) -> str:
    return getattr(function, "__module__", type(function).__module__)


def test_what_an_event_has() -> None:
    fields = {f.name for f in dataclasses.fields(Event) if not f.name.startswith("_")}
    derived = {
        name
        for name, value in vars(Event).items()
        if not name.startswith("_") and not isinstance(value, classmethod)
    }
    assert {code(row[0]) for row in table("What an event has")} == fields | derived


def test_types_of_events() -> None:
    named = re.findall(r"`((?:sms|device|otp)\.[a-z]+)`", section("Which events it gets"))
    assert set(named) == set(SAMPLES)


def test_arguments_of_on() -> None:
    defaults = {
        code(name): code(default)
        for name, default, _meaning in table("Which events it gets")
        if name != "`name`"
    }
    assert {name: int(text) for name, text in defaults.items()} == {
        name: value for name, value in (Registry.on.__kwdefaults__ or {}).items() if name != "name"
    }


# --- examples


def example(opening: str) -> dict[str, Any]:
    """Run one of README's Python files as a module of that name."""
    for block in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        if block.startswith(f"# {opening}.py\n"):
            namespace = {"__name__": opening}
            exec(compile(block, f"README.md: {opening}.py", "exec"), namespace)
            return namespace
    raise AssertionError(f"README has no example {opening}.py")


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


def test_the_example_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    module, registry = example("my_handlers"), Registry()
    monkeypatch.delenv("TEAM_URL", raising=False)
    with pytest.raises(ConfigError, match="TEAM_URL"):
        module["register"](registry)
    monkeypatch.setenv("TEAM_URL", "https://team.example.com/sms")
    module["register"](registry)
    (handler,) = registry
    assert f"`{handler.name}`" in section("Which events it gets")
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
    module, registry = example("my_alarm"), Registry()
    module["register"](registry)
    (tell,) = registry.dead_functions
    tell(Event.sample("sms.failed"), "my_handlers.alert_team", "ValueError: x")
    assert caplog.messages == [
        "my_handlers.alert_team has given up sms.failed of message msg_sample"
    ]


def test_the_idempotent_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module, registry = example("orders"), Registry()
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


# --- links


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), f"{document} links to {target}"
        if anchor:
            assert anchor in anchors(linked.read_text()), f"{document} links to {target}"


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_make_targets_that_readme_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z]+)`", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
