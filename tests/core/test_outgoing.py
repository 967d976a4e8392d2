"""Whoever answers, a call ends in time; and no environment keeps a client from being made."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from receiver import HandlerError, http_client, read_at_most, time_limit

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


Behaviour = Callable[[socket.socket], None]


@contextlib.contextmanager
def answering(behaviour: Behaviour) -> Iterator[str]:
    """A server that reads what comes and then behaves in some way."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65_536)
                        behaviour(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def drips(connection: socket.socket) -> None:
    """A head without an end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"A: b\r\n")
        time.sleep(0.02)


def drips_its_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


def answers_without_end(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")
    while True:
        connection.sendall(b"x" * 1_000_000)


def interim(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.01)


def hello(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")


@pytest.mark.parametrize("behaviour", [drips, drips_its_body, interim])
def test_a_call_has_one_deadline(behaviour: Behaviour) -> None:
    with answering(behaviour) as url, http_client(timeout=5) as client:
        began = time.monotonic()
        with pytest.raises(httpx.TimeoutException), time_limit(0.3):
            client.get(url)
        assert time.monotonic() - began < 10  # it would never end


def test_no_address_is_logged_where_a_host_logs_those_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    with answering(hello) as url, http_client() as client, httpx.Client(trust_env=False) as other:
        client.get(f"{url}a-secret")
        with client.stream("GET", f"{url}a-secret") as answer:
            read_at_most(answer, 5)
        other.get(f"{url}of-the-host")
    assert "a-secret" not in caplog.text
    assert "of-the-host" in caplog.text


def test_limits_lie_within_each_other() -> None:
    with (
        answering(drips) as url,
        http_client() as client,
        time_limit(0.2),
        pytest.raises(httpx.TimeoutException),
        time_limit(60),
    ):
        client.get(url)


def test_as_much_is_read_as_is_asked_for() -> None:
    with (
        answering(answers_without_end) as url,
        http_client() as client,
        client.stream("GET", url) as answer,
    ):
        assert read_at_most(answer, 100_000) == b"x" * 100_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PROXY", "socks5h://127.0.0.1:9"),
        ("ALL_PROXY", "socks5h://127.0.0.1:9"),
        ("ALL_PROXY", "nonsense://x"),
        ("HTTPS_PROXY", "http://[::1"),
        ("HTTP_PROXY", "http://127.0.0.1:9"),
        ("NO_PROXY", "::1,[fe80::1]:80,10.0.0.0/8,*.example"),
        ("SSL_CERT_FILE", "/nowhere/at/all.pem"),
        ("SSL_CERT_FILE", "/dev/null"),
        ("SSL_CERT_DIR", "/nowhere"),
    ],
)
def test_no_environment_stops_a_client_or_reaches_loopback(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for each in {name, name.lower()}:
        monkeypatch.setenv(each, value)

    with answering(hello) as url, http_client() as client:
        for address in (url, url.replace("127.0.0.1", "localhost")):
            assert client.get(address).text == "hello"


def test_what_is_left_out_is_told_without_the_proxys_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://me:hunter2@proxy")
    with caplog.at_level(logging.WARNING):
        http_client().close()
    assert "HTTPS_PROXY or ALL_PROXY is left out" in caplog.text
    assert "hunter2" not in caplog.text


def test_others_are_asked_through_the_proxy_unless_they_are_excepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []

    def proxy(connection: socket.socket) -> None:
        asked.append(b"here")
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with answering(proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("NO_PROXY", "::1, .invalid")
        with http_client(timeout=10) as client:
            assert client.get("http://sms.example.com/").status_code == 204
            with pytest.raises(httpx.HTTPError):
                client.get("http://sms.invalid/")
    assert asked == [b"here"]


class TestForward:
    """`handlers.forward` and targets that do not behave."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from handlers import forward

        monkeypatch.setattr(forward, "_WITHIN", 5.0)
        monkeypatch.setattr(forward, "_READ_WITHIN", 0.1)

    def send(self, url: str) -> None:
        from handlers.forward import Forward

        class AnEvent:
            id, raw = "evt_1", b"{}"

        Forward(url, b"x" * 24)(AnEvent())  # type: ignore[arg-type]

    @pytest.mark.parametrize("behaviour", [drips_its_body, answers_without_end])
    def test_the_body_of_an_answer_does_not_matter(self, behaviour: Behaviour) -> None:
        with answering(behaviour) as url:
            began = time.monotonic()
            self.send(url)
            assert time.monotonic() - began < 10  # it would never end

    def test_a_head_that_drips_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("handlers.forward._WITHIN", 0.5)
        with answering(drips) as url, pytest.raises(HandlerError) as raised:
            self.send(url)
        assert not raised.value.permanent

    @pytest.mark.parametrize(("status", "permanent"), [(301, True), (308, True), (302, False)])
    def test_a_redirect_says_where_to(self, status: int, permanent: bool) -> None:
        def elsewhere(connection: socket.socket) -> None:
            connection.sendall(
                b"HTTP/1.1 %d X\r\nLocation: https://other.example/in?key=hunter2\r\n"
                b"Content-Length: 0\r\nConnection: close\r\n\r\n" % status
            )

        with answering(elsewhere) as url, pytest.raises(HandlerError) as raised:
            self.send(url)
        assert raised.value.permanent is permanent
        assert f"answered {status} and points to https://other.example/in;" in str(raised.value)
        assert "hunter2" not in str(raised.value)
