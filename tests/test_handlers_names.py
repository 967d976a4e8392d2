"""By which names the built-in handlers are known: to users, and in the database."""

from __future__ import annotations

import importlib

import pytest

import handlers
from handlers import email, log
from receiver import Registry


def test_one_module_by_both_names() -> None:
    import handlers.email

    import receiver.handlers

    assert handlers.register is receiver.handlers.register
    assert handlers.log is receiver.handlers.log
    for name in ("log", "forward", "email"):
        module = importlib.import_module(f"handlers.{name}")
        assert module is importlib.import_module(f"receiver.handlers.{name}")


def test_their_names_in_the_database_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that an earlier release has written down carries them."""
    monkeypatch.setenv("FORWARD_URL", "https://example.com/in")
    monkeypatch.setenv("FORWARD_SECRET", "whsec_" + "MDEy" * 8)
    monkeypatch.setenv("EMAIL_URL", "smtp://127.0.0.1")
    monkeypatch.setenv("EMAIL_TO", "a@example.com")
    registry = Registry()
    handlers.register(registry)
    assert [handler.name for handler in registry] == ["log", "forward", "email"]
    assert (log.log.name, email.log.name) == ("handlers.log", "handlers.email")
