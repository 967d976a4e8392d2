"""The tables of the reference say what the code has."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from flask import Flask

import handlers
import receiver
from handlers import email, forward
from receiver import Event, Registry, config
from receiver.providers.zimsend.samples import SAMPLES
from tests.docs.conftest import Planted
from tests.docs.known import Known, commands_of, options_of
from tests.docs.markdown import Page
from tests.server import ROOT


def reference(name: str, root: Path = ROOT) -> Page:
    return Page(root, root / "docs" / "reference" / f"{name}.md")


def code(cell: str) -> str:
    """What stands between the backticks."""
    found = re.fullmatch(r"`([^`]+)`", cell)
    assert found, f"{cell!r} should be code"
    return found[1]


def documented_settings(root: Path) -> dict[str, str]:
    words = {"not set": ""}
    return {
        code(name): words[default] if default in words else code(default)
        for name, default, _meaning in reference("settings", root).table()
    }


def test_settings(planted: Planted) -> None:
    expected: dict[str, str] = {s.name: s.default for s in config.SETTINGS}
    expected |= dict.fromkeys((*forward.SETTINGS, *email.SETTINGS), "")
    expected["EMAIL_EVENTS"] = email.DEFAULT_EVENTS
    assert documented_settings(ROOT) == expected
    copy = planted("docs/reference/settings.md", "| `PORT` | `3000` |", "| `PORT` | `8000` |")
    assert documented_settings(copy) == expected | {"PORT": "8000"}


def documented_commands(root: Path) -> dict[str, set[str]]:
    documented = {}
    for usage, _meaning in reference("commands", root).table():
        found = re.fullmatch(r"flask ([a-z-]+(?: [a-z]+)?)\b(.*)", code(usage))
        assert found, usage
        documented[found[1]] = set(re.findall(r"--[a-z-]+", found[2]))
    return documented


def test_commands_and_their_options(app: Flask, planted: Planted) -> None:
    registered = {path: set(options_of(command)) for path, command in commands_of(app.cli)}
    assert documented_commands(ROOT) == registered
    copy = planted("docs/reference/commands.md", "flask expire [--dry-run]", "flask expire")
    assert documented_commands(copy) == registered | {"expire": set()}


def test_commands_of_the_package(names: Known) -> None:
    text = reference("commands").text
    rows = re.findall(r"^\| `zimsend-receiver ([a-z-]+)\b", text, re.MULTILINE)
    assert set(rows) == names.package.keys() - names.flask.keys()


def test_built_in_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARD_URL", "https://example.com")
    monkeypatch.setenv("FORWARD_SECRET", "whsec_" + "QUJD" * 8)
    monkeypatch.setenv("EMAIL_URL", "smtp://127.0.0.1")
    monkeypatch.setenv("EMAIL_TO", "ops@example.com")
    registry = Registry()
    handlers.register(registry)
    documented = [
        (code(name), code(module), code(events))
        for name, module, events, _does in reference("handlers").table("Built-in handlers")
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
    assert {
        code(row[0]) for row in reference("events").table("What an event has")
    } == fields | derived


def test_types_of_events() -> None:
    named = re.findall(
        r"`((?:sms|device|otp)\.[a-z]+)`", reference("events").section("Which types there are")
    )
    assert set(named) == set(SAMPLES)


def test_arguments_of_on() -> None:
    defaults = {
        code(name): code(default)
        for name, default, _meaning in reference("handlers").table("Options")
        if name != "`name`"
    }
    assert {name: int(text) for name, text in defaults.items()} == {
        name: value for name, value in (Registry.on.__kwdefaults__ or {}).items() if name != "name"
    }


def test_what_handlers_import() -> None:
    section = reference("handlers").section("What `receiver` has")
    assert set(re.findall(r"`(\w+)[^`]*`", "".join(re.findall(r"^\| ([^|]*)", section, re.M)))) == {
        *receiver.__all__
    }
