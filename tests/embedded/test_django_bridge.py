"""What WSGI allows an application, also where the receiver makes no use of it, on both servers."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("django", reason="NOT TESTED HERE: there is no Django")

from django.test import override_settings

from tests.embedded import djangos
from tests.embedded.djangos import Answer, Ask, project

Start = Callable[..., object]
Application = Callable[[dict[str, Any], Start], Any]


@pytest.fixture(scope="module", autouse=True)
def _django() -> None:
    djangos.set_up()


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask an application that is in the place of the receiver's."""

    def ask(
        application: Application, method: str = "GET", path: str = "/sms/x", **more: Any
    ) -> Answer:
        monkeypatch.setattr("receiver.django.urls.receiver", lambda: application)
        return project(request.param)(method, path, **more)

    return ask


class Streamed:
    """A body whose length nobody knows."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self.made = 0
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self._parts):
            self.made += 1
            yield b"part"

    def close(self) -> None:
        self.closed += 1


def test_a_stream_is_sent_part_by_part_and_closed(ask: Ask) -> None:
    body = Streamed(3)

    def application(environ: dict[str, Any], start: Start) -> Streamed:
        start("200 OK", [("Content-Type", "text/csv")])
        return body

    with override_settings(MIDDLEWARE=[]):
        answer = ask(application)
    assert answer.parts == [b"part"] * 3
    assert (answer.one("content-type"), body.closed) == ("text/csv", 1)


def test_a_stream_may_be_compressed_on_its_way(ask: Ask) -> None:
    body = Streamed(3)

    def application(environ: dict[str, Any], start: Start) -> Streamed:
        start("200 OK", [])
        return body

    answer = ask(application, accept_encoding="gzip")
    assert answer.one("content-encoding") == "gzip"
    assert (gzip.decompress(answer.body), body.closed) == (b"partpartpart", 1)


def test_a_stream_whose_reader_has_left_is_closed() -> None:
    from django.test import RequestFactory

    from receiver.django import bridge

    body = Streamed(1_000)

    def application(environ: dict[str, Any], start: Start) -> Streamed:
        start("200 OK", [])
        return body

    response = bridge.call(application, RequestFactory().get("/sms/x"), "x")
    assert next(iter(response)) == b"part"
    response.close()
    assert (body.made, body.closed) == (1, 1)


def test_status_headers_and_cookies_are_the_applications(ask: Ask) -> None:
    cookies = ["a=1; Path=/sms/; HttpOnly", 'b="x\\\\054y"; Max-Age=5; Secure']

    def application(environ: dict[str, Any], start: Start) -> list[bytes]:
        headers = [("Set-Cookie", cookie) for cookie in cookies]
        start("299 Of Its Own", [*headers, ("Vary", "A"), ("Vary", "B"), ("Link", "<é>")])
        return []

    with override_settings(MIDDLEWARE=[]):
        answer = ask(application)
    assert answer.status == 299
    assert [set(c.strip().split("; ")) for c in answer.all("set-cookie")] == [
        set(c.split("; ")) for c in cookies
    ]
    assert answer.one("vary") == "A, B"
    assert answer.one("link") == "<é>"
    assert answer.one("content-type") is None


@pytest.mark.parametrize(
    ("method", "status", "length"), [("HEAD", "200 OK", "17"), ("GET", "304 Not Modified", None)]
)
def test_an_answer_without_a_body_stays_as_it_is(
    ask: Ask, method: str, status: str, length: str | None
) -> None:
    def application(environ: dict[str, Any], start: Start) -> list[bytes]:
        start(status, [("Content-Length", length)] if length else [("ETag", '"x"')])
        return []

    answer = ask(application, method)
    assert (answer.status, answer.one("content-length")) == (int(status[:3]), length)
    assert answer.body == b""


def test_the_environment_is_as_the_server_has_told_it(ask: Ask) -> None:
    seen: dict[str, Any] = {}

    def application(environ: dict[str, Any], start: Start) -> list[bytes]:
        seen.update(environ, body=environ["wsgi.input"].read())
        start("204 No Content", [])
        return []

    ask(
        application, "POST", "/acme/of/sms/%C3%A9/%ff//x%2Fy?a=%FF",
        body=b"\xff" * 3_000_000, content_type="text/x", x_thing="1",
    )  # fmt: skip
    expected = {
        "SCRIPT_NAME": "/acme/of/sms",
        "PATH_INFO": "/Ã©/\xff//x/y",
        "QUERY_STRING": "a=%FF",
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "3000000",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_THING": "1",
        "wsgi.url_scheme": "http",
        "body": b"\xff" * 3_000_000,
    }
    assert {name: seen[name] for name in expected} == expected


def reads_all(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware that looks at each body."""

    def middleware(request: Any) -> Any:
        assert request.body
        return get_response(request)

    middleware.async_capable = False  # type: ignore[attr-defined]
    return middleware


def test_what_a_middleware_has_read_is_there_once_more(ask: Ask) -> None:
    seen = []

    def application(environ: dict[str, Any], start: Start) -> list[bytes]:
        seen.append(environ["wsgi.input"].read(2) + environ["wsgi.input"].read())
        start("204 No Content", [])
        return []

    with override_settings(MIDDLEWARE=[f"{__name__}.reads_all"]):
        ask(application, "POST", body=b"a=1\r\n&\xff", content_type="application/json")
    assert seen == [b"a=1\r\n&\xff"]


def test_a_prefix_without_a_slash_catches_no_longer_names(ask: Ask) -> None:
    from django.http import Http404
    from django.test import RequestFactory

    from receiver.django import bridge

    request = RequestFactory().get("/smsx")
    with pytest.raises(Http404):
        bridge.environ_of(request, "x")
    environ = bridge.environ_of(RequestFactory().get("/sms/x"), "/x")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/sms", "/x")
