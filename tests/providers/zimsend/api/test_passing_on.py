"""Requests of others, passed on as they came."""

from __future__ import annotations

import pytest

from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.api.errors import (
    Unavailable,
)
from tests.canned import Canned, ok, reset, status
from tests.providers.zimsend.api.calls import ID, KEY


def test_what_is_passed_on(once: ZimSend, server: Canned) -> None:
    server.answers(
        status(418, b"\x00\xff", "X-One: 1", "X-One: 2", "Connection: keep-alive", "X-Two: é")
    )
    answer = once.forward(
        "PUT",
        "/sms/a%2Fb/c+d",
        b"\xff\x00",
        headers={
            "content-type": "text/x",
            "x-api-key": "another",
            "X-CLIENT-ID": "another",
            "Host": "example.org",
            "Cookie": "a=b",
            "Authorization": "Basic x",
            "Connection": "close",
            "Transfer-Encoding": "chunked",
            "Content-Length": "9",
            "X-Request-Id": "r 1",
        },
        query="a=%20&b=1+2&b",
    )
    [seen] = server.seen
    assert (seen.method, seen.path) == ("PUT", "/v1/sms/a%2Fb/c+d?a=%20&b=1+2&b")
    assert seen.body == b"\xff\x00"
    assert seen.headers.get_all("X-API-Key") == [KEY]
    assert seen.headers.get_all("X-Client-ID") == [ID]
    assert seen.headers.get_all("Content-Type") == ["text/x"]
    assert seen.headers["X-Request-Id"] == "r 1"
    assert seen.headers["Host"] == server.url.removeprefix("http://")
    assert not {"Cookie", "Authorization", "Transfer-Encoding"} & set(seen.headers)
    assert answer.status == 418
    assert answer.body == b"\x00\xff"
    assert [value for name, value in answer.headers if name == "x-one"] == ["1", "2"]
    assert not {"connection", "content-length"} & {name for name, _ in answer.headers}


def test_the_device_of_what_is_passed_on(server: Canned) -> None:
    with ZimSend(KEY, ID, device_id="dev_1", base_url=server.url) as zimsend:
        zimsend.forward("POST", "/sms/send", b"{}")
        assert server.last.headers.get_all("X-Device-ID") == ["dev_1"]
        assert server.last.headers["Content-Type"] == "application/json"
        zimsend.forward("GET", "/x", headers={"x-device-id": "dev_2"})
        assert server.last.headers.get_all("X-Device-ID") == ["dev_2"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "query"),
    [
        ("GET", "x", {}, ""),
        ("GET", "", {}, ""),
        ("GET", "@example.org/", {}, ""),
        ("GET", "/a/../b", {}, ""),
        ("GET", "/a/%2e%2E", {}, ""),
        ("GET", "/.", {}, ""),
        ("GET", "/a?b", {}, ""),
        ("GET", "/a#b", {}, ""),
        ("GET", "/a b", {}, ""),
        ("GET", "/é", {}, ""),
        ("GET", "/a", {}, "b#c"),
        ("GET", "/a", {}, "b\r\nc"),
        ("GET", "/" + "a" * 70_000, {}, ""),
        ("GET\r\n", "/a", {}, ""),
        ("", "/a", {}, ""),
        ("GET", "/a", {"X-A": "b\r\nX-C: d"}, ""),
        ("GET", "/a", {"X-A\r\nX-C": "d"}, ""),
        ("GET", "/a", {"": "d"}, ""),
        ("GET", "/a", {"X-A": "é"}, ""),
    ],
)
def test_what_cannot_be_passed_on(
    once: ZimSend, server: Canned, method: str, path: str, headers: dict[str, str], query: str
) -> None:
    with pytest.raises(ValueError, match=r"path and query|URL|HTTP method|header|ascii"):
        once.forward(method, path, headers=headers, query=query)
    assert server.seen == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_passing_on_is_done_once(patient: ZimSend, server: Canned, method: str) -> None:
    server.answers(status(502, b"x"), ok({}))
    assert patient.forward(method, "/x").status == 502
    server.answers(reset, ok({}))
    with pytest.raises(Unavailable) as caught:
        patient.forward(method, "/x")
    assert caught.value.maybe_sent
    assert len(server.seen) == 1
