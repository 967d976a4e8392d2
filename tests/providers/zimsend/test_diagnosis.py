"""Known mistakes with a signature, each found by its example."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from receiver.providers.zimsend.diagnosis import (
    LARGEST,
    NO_HEADER,
    NOT_HEX,
    SEVERAL,
    TOO_LARGE,
    UNKNOWN,
    likely_cause,
)
from receiver.providers.zimsend.webhook import sign

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = b"whsec_" + KEY
EVENT = {"event": "sms.sent", "data": {"message": "été 👋", "url": "https://x/y"}, "a": 1}
BODY = json.dumps(EVENT, ensure_ascii=False, separators=(",", ":")).encode()


def cause(signature: str | None, body: bytes = BODY, *secrets: bytes) -> str:
    headers = {} if signature is None else {"x-webhook-signature": signature}
    return likely_cause(body, headers, secrets or (b"another secret of some length", SECRET))


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (None, NO_HEADER),
        ("", NO_HEADER),
        (f"{'a' * 64},{'b' * 64}", SEVERAL),
        ("a" * 63, NOT_HEX),
        ("é" * 64, NOT_HEX),
        ("sha256=", NOT_HEX),
        ("a" * 128, NOT_HEX),
        ("a" * 64, UNKNOWN),
        (f"sha256={'A' * 64}", UNKNOWN),
    ],
)
def test_what_the_header_shows(signature: str | None, expected: str) -> None:
    assert cause(signature) == expected


@pytest.mark.parametrize(
    ("signed_with", "expected"),
    [
        (SECRET + b"\n", "a line's end"),
        (SECRET + b" ", "a blank"),
        (b'"' + SECRET + b'"', "in quotes"),
        (KEY, "without its `whsec_`"),
        (base64.b64decode(KEY), "base64"),
        (bytes.fromhex(KEY.decode()), "base64|hexadecimal"),
    ],
)
def test_the_secret_with_who_signs(signed_with: bytes, expected: str) -> None:
    told = cause(sign(signed_with, BODY))
    assert any(part in told for part in expected.split("|"))


@pytest.mark.parametrize(
    ("is_set", "expected"),
    [
        (b" " + SECRET + b"\n", "set has blanks"),
        (b'"' + SECRET + b'"', "set has quotes"),
        (KEY, "with `whsec_` in front"),
    ],
)
def test_the_secret_that_is_set(is_set: bytes, expected: str) -> None:
    assert expected in cause(sign(SECRET, BODY), BODY, is_set)


def test_another_algorithm_or_alphabet() -> None:
    for name in ("sha1", "sha512", "md5"):
        digest = hmac.new(SECRET, BODY, name).hexdigest()
        assert cause(digest) == f"it is signed with {name.upper()}, not with SHA-256"
        assert cause(f"{name}={digest}" if name != "md5" else digest).startswith(
            "it is signed with"
        )
    digest = hmac.new(SECRET, BODY, hashlib.sha256).digest()
    assert "base64" in cause(base64.b64encode(digest).decode())
    assert "base64" in cause(base64.urlsafe_b64encode(digest).decode().rstrip("="))


@pytest.mark.parametrize(
    ("came", "expected"),
    [
        (json.dumps(EVENT).encode(), "written again"),
        (json.dumps(EVENT, indent=2).encode(), "written again"),
        (BODY + b"\n", "a line's end"),
        (b" " + BODY + b" ", "blanks around it"),
        (b"\xef\xbb\xbf" + BODY, "byte order mark"),
    ],
)
def test_a_body_that_was_changed_on_its_way(came: bytes, expected: str) -> None:
    assert expected in cause(sign(SECRET, BODY), came)


def test_a_body_that_lost_its_form() -> None:
    for text in (
        json.dumps(EVENT),
        json.dumps(EVENT).replace("/", "\\/"),
        json.dumps(EVENT, indent=2),
    ):
        assert "written again" in cause(sign(SECRET, text.encode()), BODY)
    assert "a line's end" in cause(sign(SECRET, BODY + b"\n"), BODY)


def test_large_bodies_are_not_looked_at_and_nothing_is_shown() -> None:
    body = b"x" * (LARGEST + 1)
    assert cause(sign(SECRET, body + b"\n"), body) == TOO_LARGE
    assert cause("zz", body) == NOT_HEX
    assert cause("a" * 64, b"[" * 60_000) == UNKNOWN
    assert cause("a" * 64, b"\xff\xfe") == UNKNOWN


def test_a_secret_with_nothing_in_it_is_never_tried() -> None:
    for empty in (b'""""""""""""""""', b"                ", b"whsec_          "):
        assert cause(sign(b"", BODY), BODY, empty) == UNKNOWN
