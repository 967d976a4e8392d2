"""Without a password there is no dashboard, and nothing of it."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from receiver import ConfigError
from tests.core.settings import read, refused


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in environ.items() if k not in ("ADMIN_PASSWORD", "SECRET_KEY")}


def test_one_sentence_says_so(client: FlaskClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    assert "its dashboard is off: set ADMIN_PASSWORD and SECRET_KEY" in answer.text
    assert answer.text.count("\n") == 1
    for path in ("/sign-in", "/messages", "/settings", "/assets/x"):
        assert client.get(path).status_code == 404


def test_the_settings_of_the_dashboard() -> None:
    config = read(ADMIN_PASSWORD="x", SECRET_KEY=f"{'a' * 32},{'b' * 31}%2C")
    assert config.admin_password == "x"
    assert config.secret_keys == (b"a" * 32, b"b" * 31 + b",")
    assert "a" * 32 not in repr(config)
    assert refused(ADMIN_PASSWORD="x").name == "SECRET_KEY"
    assert refused(ADMIN_PASSWORD="x", SECRET_KEY="a" * 31).name == "SECRET_KEY"


def test_a_key_without_a_password_is_another_programs() -> None:
    config = read(SECRET_KEY="short")
    assert (config.admin_password, config.secret_keys) == (None, ())
    assert isinstance(refused(ADMIN_PASSWORD="x", SECRET_KEY="short"), ConfigError)
