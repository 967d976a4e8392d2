"""The dashboard of an application in this process, and somebody who has signed in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from tests.conftest import Clock, Provider
from tests.payloads import envelope, sms

PASSWORD = "corrêct horse battery staple"
KEY = "0123456789abcdef0123456789abcdef"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return {**environ, "ADMIN_PASSWORD": PASSWORD, "SECRET_KEY": KEY}


class Visitor:
    """A browser without scripts: it follows nothing by itself, and posts as a browser does."""

    def __init__(self, app: Flask) -> None:
        self.client: FlaskClient = app.test_client()

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, headers=headers)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> TestResponse:
        return self.client.post(path, data=fields, headers=SAME_ORIGIN | headers)

    def sign_in(self, password: str = PASSWORD, **more: str) -> TestResponse:
        form = field_of(self.get("/sign-in").text, "form")
        return self.post("/sign-in", {"form": form, "password": password, **more})

    def session(self) -> str | None:
        cookie = self.client.get_cookie("zimsend_session")
        return cookie and cookie.value


def field_of(page: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)">', page)
    assert found, f"no field {name}"
    return found[1]


@pytest.fixture
def filled(provider: Provider) -> None:
    """Messages `m1` (failed), `m2` (delivered) and `m3` (sent), of which somebody told today."""
    for message_id, *states in (
        ("m1", "sent", "failed"),
        ("m2", "sent", "delivered"),
        ("m3", "sent"),
    ):
        for state in states:
            answer = provider.post(envelope(f"sms.{state}", sms(state, message_id)))
            assert answer.status_code == 200


@pytest.fixture
def visitor(app: Flask) -> Visitor:
    return Visitor(app)


@pytest.fixture
def admin(visitor: Visitor) -> Visitor:
    """Has signed in."""
    assert visitor.sign_in().status_code == 303
    return visitor


Another = Callable[..., Visitor]


@pytest.fixture
def another(environ: dict[str, str], clock: Clock, app: Flask) -> Iterator[Another]:
    """Somebody at another process on the same database, perhaps with other settings."""
    apps: list[Flask] = []

    def visit(**settings: str) -> Visitor:
        apps.append(create_app({**environ, **settings}, clock))
        return Visitor(apps[-1])

    yield visit
    for made in apps:
        made.extensions["receiver"].store.close()
