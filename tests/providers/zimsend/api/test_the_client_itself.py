"""How a client is made, shared and closed."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from receiver.providers.zimsend.api import ZimSend
from tests.canned import Canned, Handler, ok
from tests.providers.zimsend.api.calls import ID, KEY, MESSAGE
from tests.server import ROOT


@pytest.mark.parametrize(
    "url",
    [
        *("", "api.zimsend.com", "ftp://example.org", "//example.org", "https://", "https:///v1"),
        *(
            "http://[",
            "https://exa mple.org",
            "file:///etc/passwd",
            "https://key@example.org",
            "https://u:p@example.org",
        ),
        *("https://example.org?a=1", "https://example.org/#a", "http://example.org:x"),
    ],
)
def test_base_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        ZimSend(KEY, ID, base_url=url)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "client_id", "device_id"),
    [
        ("", ID, None),
        (KEY, "", None),
        (KEY, ID, ""),
        ("zs_test_secret\n", ID, None),
        ("zs_test_secret\r\nX: 1", ID, None),
        (KEY, "client_é", None),
        (KEY, ID, "dev\x00"),
        (" zs_test_secret", ID, None),
    ],
)
def test_credentials_that_no_header_can_hold(
    key: str, client_id: str, device_id: str | None
) -> None:
    with pytest.raises(ValueError, match="header") as caught:
        ZimSend(key, client_id, device_id=device_id)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "odd",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"tries": 0},
        {"patience": -1},
    ],
)
def test_bounds_that_make_no_sense(odd: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="timeout"):
        ZimSend(KEY, ID, **odd)


def test_threads_share_a_client(server: Canned) -> None:
    def echo(handler: Handler) -> None:
        ok({"message_id": handler.path.rpartition("/")[2]})(handler)

    server.answers(echo)
    ids = [f"msg_{number}" for number in range(200)]
    # With its tries: once a read met a closed descriptor here (EBADF), for a reason not yet found.
    with (
        ZimSend(KEY, ID, base_url=server.url) as zimsend,
        ThreadPoolExecutor(24) as threads,
    ):
        assert [m.message_id for m in threads.map(zimsend.status, ids)] == ids


def test_connections_are_kept(once: ZimSend, server: Canned) -> None:
    ports = set()

    def note(handler: Handler) -> None:
        ports.add(handler.client_address)
        ok(MESSAGE)(handler)

    server.answers(note)
    for _ in range(10):
        once.status("msg_1")
    assert len(ports) == 1


def test_a_client_that_is_closed(server: Canned) -> None:
    zimsend = ZimSend(KEY, ID, base_url=server.url)
    zimsend.close()
    with pytest.raises(RuntimeError):
        zimsend.stats()


def test_the_package_does_without_http() -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, receiver.providers.zimsend.samples; assert 'httpx' not in sys.modules;"
            "from receiver.providers.zimsend.api import ZimSend; assert 'flask' not in sys.modules",
        ],
        cwd=ROOT,
        check=False,
    )
    assert ran.returncode == 0
