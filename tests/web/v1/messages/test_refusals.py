"""Errors of `/v1`: who is not let in, and what does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.web.v1.messages.known import (
    BOTH,
    CLIENT,
    CREDENTIALS,
    EXAMPLE,
    HISTORY,
    KEY,
    STATS,
    STATUS,
    refusal,
    start,
)

pytestmark = pytest.mark.each_engine

#: Each described path as it is called, and paths that do not exist.
CALLS: dict[str, str | None] = {
    f"/v1/sms/status/{EXAMPLE}": STATUS,
    HISTORY: HISTORY,
    STATS: STATS,
    "/v1": None,
    "/v1/sms/status/": None,
    "/v1/nothing": None,
    "/v1/": None,
}
METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")

REFUSED: list[tuple[dict[str, str], int, str]] = [
    ({}, 400, "MISSING_AUTH_HEADERS"),
    (KEY, 400, "MISSING_AUTH_HEADERS"),
    (CLIENT, 400, "MISSING_AUTH_HEADERS"),
    (BOTH | {"X-API-Key": ""}, 400, "MISSING_AUTH_HEADERS"),
    (BOTH | {"X-Client-ID": ""}, 400, "MISSING_AUTH_HEADERS"),
    (BOTH | {"X-API-Key": "zs_test_wrong"}, 401, "INVALID_API_KEY"),
    (BOTH | {"X-API-Key": "clé"}, 401, "INVALID_API_KEY"),
    (BOTH | {"X-Client-ID": "client_wrong"}, 401, "INVALID_CLIENT_ID"),
    (BOTH | {"X-Client-ID": KEY["X-API-Key"]}, 401, "INVALID_CLIENT_ID"),
    ({"X-API-Key": "a", "X-Client-ID": "b"}, 401, "INVALID_API_KEY"),
]


@pytest.mark.parametrize("url", CALLS)
@pytest.mark.parametrize(("headers", "code", "name"), REFUSED)
def test_without_the_right_headers(
    client: FlaskClient, url: str, headers: dict[str, str], code: int, name: str
) -> None:
    refusal(client.get(url, headers=headers), code, name, CALLS[url])
    refusal(client.post(url, headers=headers), code, name)


def test_it_takes_the_header_names_in_any_case(client: FlaskClient) -> None:
    headers = {name.upper(): value for name, value in BOTH.items()}
    assert client.get(STATS, headers=headers).status_code == 200


CLOSED: list[dict[str, str]] = [{}, dict.fromkeys(CREDENTIALS, " "), {"V1_CLIENT_ID": "client_1"}]


@pytest.mark.parametrize("environ", CLOSED)
@pytest.mark.parametrize("headers", [{}, BOTH], ids=["no headers", "headers"])
def test_it_is_closed_where_nothing_is_configured(
    tmp_path: Path, environ: dict[str, str], headers: dict[str, str]
) -> None:
    client = start(f"sqlite:///{tmp_path / 'receiver.db'}", **environ).test_client()
    for url, path in CALLS.items():
        message = refusal(client.get(url, headers=headers), 503, "NOT_CONFIGURED", path)
        assert all(name in message for name in CREDENTIALS)
        refusal(client.post(url, headers=headers), 503, "NOT_CONFIGURED")


@pytest.mark.parametrize("path", [STATUS, HISTORY, STATS])
def test_the_database_cannot_be_used(empty_database_url: str, path: str) -> None:
    app = start(empty_database_url, **CREDENTIALS)  # its tables were never made
    client = app.test_client()
    response = client.get(path.format(message_id=EXAMPLE), headers=BOTH)
    refusal(response, 503, "SERVICE_UNAVAILABLE", path)
    assert int(response.headers["Retry-After"]) > 0
    app.extensions["receiver"].store.close()


@pytest.mark.parametrize("message_id", ["unknown", "msg_sent", "y" * 300, "%00", "%F0", "a/b"])
def test_a_message_that_is_not_known(client: FlaskClient, message_id: str) -> None:
    response = client.get(f"/v1/sms/status/{message_id}", headers=BOTH)
    refusal(response, 404, "MESSAGE_NOT_FOUND", STATUS)


@pytest.mark.parametrize("url", [url for url, path in CALLS.items() if path is None])
def test_a_path_that_does_not_exist(client: FlaskClient, url: str) -> None:
    refusal(client.get(url, headers=BOTH), 404, "NOT_FOUND")
    refusal(client.post(url, headers=BOTH), 404, "NOT_FOUND")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("url", [url for url, path in CALLS.items() if path is not None])
def test_a_method_that_is_not_answered(client: FlaskClient, url: str, method: str) -> None:
    response = client.open(url, method=method, headers=BOTH)
    refusal(response, 405, "METHOD_NOT_ALLOWED", CALLS[url])
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("url", [url for url, path in CALLS.items() if path is not None])
def test_the_head_of_an_answer(client: FlaskClient, url: str) -> None:
    whole, head = (client.open(url, method=method, headers=BOTH) for method in ("GET", "HEAD"))
    assert head.status_code == 200
    assert head.headers == whole.headers
    assert head.data == b""
