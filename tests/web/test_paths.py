"""Slashes that make no difference, and those that do."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from receiver.web.paths import meant
from tests.conftest import Provider
from tests.payloads import envelope, sms


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/webhooks/zimsend", "/webhooks/zimsend"),
        ("/webhooks/zimsend/", "/webhooks/zimsend"),
        ("//webhooks///zimsend//", "/webhooks/zimsend"),
        ("/healthz/", "/healthz"),
        ("//readyz", "/readyz"),
        ("//", "/"),
        ("", ""),
        ("/v1//sms/history/", "/v1/sms/history"),
        ("/v1/sms/send//", "/v1/sms/send"),
        ("//v1/reconciliation/", "/v1/reconciliation"),
        ("//v1//sms//status/m_1", "/v1/sms/status/m_1"),
        # What stands in the place of an id is the id.
        ("/v1/sms/status/m_1/", "/v1/sms/status/m_1/"),
        ("/v1/sms/status//m_1", "/v1/sms/status//m_1"),
        ("//v1/sms/status//a//b/", "/v1/sms/status//a//b/"),
        ("/v1/sms/status/history/", "/v1/sms/status/history/"),
        ("/v1/sms/m_1/", "/v1/sms/m_1/"),
        ("//v1/sms/m_1//resend/", "/v1/sms/m_1//resend"),
        ("/v1/sms/status/m/resend/", "/v1/sms/status/m/resend/"),
        ("//v1//nowhere/", "/v1/nowhere/"),
        ("//nowhere/", "//nowhere/"),
    ],
)
def test_the_path_that_is_meant(path: str, expected: str) -> None:
    assert meant(path) == expected
    assert meant(expected) == expected


@pytest.mark.parametrize("path", ["/webhooks/zimsend/", "//webhooks//zimsend"])
def test_a_webhook_with_slashes_too_many_is_taken(provider: Provider, path: str) -> None:
    assert provider.post(envelope("sms.sent", sms("sent")), path=path).status_code == 200


def test_who_looks_at_the_webhook_first_is_told_that_it_is_there(client: FlaskClient) -> None:
    """Consoles try the address with GET or HEAD before they register it."""
    for path in ("/webhooks/zimsend", "/webhooks/zimsend/"):
        got = client.get(path)
        assert (got.status_code, got.content_type) == (200, "text/plain; charset=utf-8")
        assert got.text.count(".") == 1
        assert "POST" in got.text
        head = client.head(path)
        assert (head.status_code, head.data) == (200, b"")
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "FOO"):
        got = client.open("/webhooks/zimsend", method=method)
        assert (got.status_code, got.headers["Allow"]) == (405, "GET, HEAD, POST")


def test_the_root_tells_that_the_dashboard_is_off(client: FlaskClient) -> None:
    got = client.get("/")
    assert (got.status_code, got.content_type) == (200, "text/plain; charset=utf-8")
    assert "dashboard is off" in got.text
    assert client.post("/").status_code == 405


KEYS = {"X-API-Key": "key", "X-Client-ID": "client"}


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return {**environ, "ZIMSEND_API_KEY": "key", "ZIMSEND_CLIENT_ID": "client"}


def get(client: FlaskClient, path: str) -> TestResponse:
    # The client would look for a host in it.
    return client.get("/", headers=KEYS, environ_overrides={"PATH_INFO": path})


def test_slashes_under_v1_make_no_difference(client: FlaskClient) -> None:
    for path in (
        "/v1/sms/history/",
        "/v1//sms/history",
        "//v1/sms//stats//",
        "/v1/reconciliation/",
    ):
        assert get(client, path).status_code == 200
    assert client.get("/healthz/").status_code == client.get("/readyz/").status_code == 200


def test_an_id_keeps_its_slashes(provider: Provider, client: FlaskClient) -> None:
    for message_id in ("m_1", "m_1/", "/m_1", "a//b"):
        provider.post(envelope("sms.sent", sms("sent", message_id=message_id)))
        got = get(client, f"//v1/sms//status/{message_id}")
        assert (got.status_code, got.json["message_id"]) == (200, message_id)  # type: ignore[index]
    assert get(client, "/v1/sms/status/a/b").status_code == 404
