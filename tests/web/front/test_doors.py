"""Where the service listens; and one line where it cannot."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest
from flask import Flask, request

from receiver.config import Config
from receiver.errors import ConfigError
from receiver.service import create_app
from receiver.web.front.doors import addresses, obstacle
from tests.conftest import SECRET
from tests.server import Server, cannot_run


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_all_addresses_of_both_kinds_by_default() -> None:
    listened = addresses(None, 3000)
    assert listened[0] == "0.0.0.0:3000"
    if len(listened) == 1:
        cannot_run("this machine has no IPv6")
    assert listened[1] == "[::]:3000"


def test_a_shortage_closes_no_door_at_a_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where gunicorn is told of other addresses, it closes those that it has."""
    before = addresses(None, 3000)

    def refused(*_: object) -> NoReturn:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", refused)
    assert addresses(None, 3000) == before


def test_one_address_where_it_is_said() -> None:
    assert addresses("127.0.0.1", 80) == ["127.0.0.1:80"]
    assert addresses("::1", 80) == ["[::1]:80"]


def test_localhost_is_answered_by_ipv6_as_well(server: Server) -> None:
    if len(addresses(None, 1)) == 1:
        cannot_run("this machine has no IPv6")
    for host in ("::1", "127.0.0.1"):
        with socket.create_connection((host, server.port), timeout=10) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_what_keeps_from_listening_is_one_line_that_says_what_to_do(taken: int) -> None:
    told = obstacle([("127.0.0.1", taken)])
    assert told is not None
    assert f"Port {taken} of 127.0.0.1" in told
    assert "set PORT" in told
    assert "set BIND" in (obstacle([("198.51.100.1", 9)]) or "")
    assert "\n" not in told
    assert obstacle([("127.0.0.1", 0), "unix:/nowhere", 3]) is None


def test_a_second_start_on_the_same_port_ends_at_once(server: Server) -> None:
    log = server.log.stat().st_size
    first = server.process
    try:
        server.spawn(["-m", "receiver.welcome"])
        assert server.process is not None
        assert server.process.wait(20) == 1
    finally:
        server.process = first
    told = server.log.read_bytes()[log:].decode()
    assert told.count("zimsend-receiver cannot start. Port") == 1
    assert "webhook URL" not in told


@pytest.mark.parametrize("value", ["tcp://10.0.0.1:3000", "0.0.0.0:3000", ":3000", "0", "65536"])
def test_a_port_that_is_none(value: str) -> None:
    with pytest.raises(ConfigError, match=r"PORT: must be a whole number .* goes into BIND"):
        Config.from_env({"ZIMSEND_WEBHOOK_SECRET": SECRET, "PORT": value})


@pytest.mark.parametrize("value", ["localhost:3000", "0.0.0.0:80", "example", "1.2.3"])
def test_an_address_that_is_none(value: str) -> None:
    with pytest.raises(ConfigError, match="BIND: must be an IP address"):
        Config.from_env({"ZIMSEND_WEBHOOK_SECRET": SECRET, "BIND": value})


@pytest.mark.parametrize(
    ("proxies", "expected"),
    [("0", "http 127.0.0.1"), ("1", "https 192.0.2.2"), ("2", "http 192.0.2.1")],
)
def test_as_many_proxies_are_believed_as_there_are(
    environ: dict[str, str], proxies: str, expected: str
) -> None:
    app: Flask = create_app({**environ, "TRUSTED_PROXIES": proxies})
    app.add_url_rule("/seen", view_func=lambda: f"{request.scheme} {request.remote_addr}")
    headers = {"X-Forwarded-For": "192.0.2.1, 192.0.2.2", "X-Forwarded-Proto": "http, https"}
    assert app.test_client().get("/seen", headers=headers).text == expected
