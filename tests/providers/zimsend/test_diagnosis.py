"""Known mistakes with a signature: each is made, and found by its name; none is named falsely."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from receiver.providers.zimsend.diagnosis import LARGEST, Cause, causes, diagnose
from receiver.providers.zimsend.webhook import sign
from tests.server import ROOT

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = b"whsec_" + KEY
OTHER = b"another secret of some length"
EVENT = {
    "event": "sms.sent",
    "timestamp": "2026-11-20T08:15:42Z",
    "data": {"message": "été <b> & moi", "url": "https://x/y"},
    "a": 1,
}
BODY = json.dumps(EVENT, ensure_ascii=False, separators=(",", ":")).encode()
LINES = json.dumps(EVENT, indent=2).encode()
SIGNATURE = sign(SECRET, BODY)


def cause(signature: str | None, body: bytes = BODY, *secrets: bytes, **headers: str) -> Cause:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if signature is not None:
        named["x-webhook-signature"] = signature
    return diagnose(body, named, secrets or (OTHER, SECRET), {"ZIMSEND_API_KEY": b"zs_live_key"})


def digest(key: bytes, body: bytes, name: str = "sha256") -> bytes:
    return hmac.new(key, body, name).digest()


# --- the header

HEADERS: list[tuple[str | None, Cause]] = [
    (None, causes.NO_HEADER),
    ("", causes.NO_HEADER),
    (f"{'a' * 64},{'b' * 64}", causes.SEVERAL),
    (f"{SIGNATURE},{'b' * 64}", causes.SEVERAL),
    ("a" * 63, causes.NOT_HEX),
    ("é" * 64, causes.NOT_HEX),
    ("sha256=", causes.NOT_HEX),
    ("a" * 128, causes.NOT_HEX),
    ("a" * 64, causes.UNKNOWN),
    (f"sha256={'A' * 64}", causes.UNKNOWN),
    (SIGNATURE, causes.FITS),
    (f"sha256={SIGNATURE.upper()}", causes.FITS),
    (f"SHA256={SIGNATURE}", causes.PREFIX),
    (f"hmac-sha256={SIGNATURE}", causes.PREFIX),
    (f"sha256:{SIGNATURE}", causes.PREFIX),
    (f"HMAC-SHA256 {SIGNATURE}", causes.PREFIX),
    (f"v1={SIGNATURE}", causes.PREFIX),
    (f'"{SIGNATURE}"', causes.PREFIX),
    (f"0x{SIGNATURE}", causes.PREFIX),
    (":".join(SIGNATURE[i : i + 2] for i in range(0, 64, 2)).upper(), causes.PREFIX),
    (SIGNATURE[:40], causes.CUT),
    (SIGNATURE[:-1], causes.CUT),
    (f"sha256={SIGNATURE[:32]}", causes.CUT),
    (base64.b64encode(digest(SECRET, BODY)).decode(), causes.BASE64),
    (base64.urlsafe_b64encode(digest(SECRET, BODY)).decode().rstrip("="), causes.BASE64),
    ("sha256=" + base64.b64encode(digest(SECRET, BODY)).decode(), causes.BASE64),
    (quote(base64.b64encode(digest(SECRET, BODY)).decode(), safe=""), causes.BASE64),
    (base64.b64encode(SIGNATURE.encode()).decode(), causes.DOUBLE),
    (SIGNATURE.encode().hex(), causes.DOUBLE),
    (digest(SECRET, BODY, "md5").hex(), causes.other_algorithm("md5")),
    (digest(SECRET, BODY, "sha1").hex(), causes.other_algorithm("sha1")),
    ("sha1=" + digest(SECRET, BODY, "sha1").hex(), causes.other_algorithm("sha1")),
    (digest(SECRET, BODY, "sha512").hex(), causes.other_algorithm("sha512")),
    (base64.b64encode(digest(SECRET, BODY, "sha512")).decode(), causes.other_algorithm("sha512")),
    (hashlib.sha256(BODY).hexdigest(), causes.NOT_KEYED),
    (hashlib.sha256(SECRET + BODY).hexdigest(), causes.NOT_KEYED),
    (sign(BODY, SECRET), causes.EXCHANGED),
]


@pytest.mark.parametrize(("signature", "expected"), HEADERS)
def test_what_the_header_shows(signature: str | None, expected: Cause) -> None:
    assert cause(signature) == expected


def test_a_signature_in_another_header() -> None:
    for value in (
        SIGNATURE,
        f"sha256={SIGNATURE}",
        base64.b64encode(digest(SECRET, BODY)).decode(),
    ):
        assert cause(None, x_hub_signature_256=value) == causes.OTHER_HEADER
    assert cause(None, x_hub_signature_256="a" * 64) == causes.NO_HEADER


def test_a_time_that_is_signed_too() -> None:
    for front in (b"1700000000.", b"1700000000", b"v0:1700000000:"):
        signature = sign(SECRET, front + BODY)
        assert cause(signature, x_webhook_timestamp="1700000000") == causes.TIMESTAMP
    stripe = f"t=1700000000,v1={sign(SECRET, b'1700000000.' + BODY)}"
    assert cause(stripe) == causes.TIMESTAMP
    svix = base64.b64encode(digest(SECRET, b"msg_1.1700000000." + BODY)).decode()
    assert cause(f"v1,{svix}", svix_id="msg_1", svix_timestamp="1700000000") == causes.TIMESTAMP
    assert cause(sign(SECRET, b"2026-11-20T08:15:42Z." + BODY)) == causes.TIMESTAMP


# --- the secret

SECRETS: list[tuple[bytes, Cause, tuple[bytes, ...]]] = [
    (SECRET + b"\n", causes.WITH_LINE_END, ()),
    (SECRET + b" ", causes.WITH_BLANK, ()),
    (b'"' + SECRET + b'"', causes.SIGNED_IN_QUOTES, ()),
    (KEY, causes.WITHOUT_PREFIX, ()),
    (b"whsec_" + OTHER, causes.WITH_PREFIX, ()),
    (base64.b64decode(KEY), causes.DECODED_BASE64, ()),
    (bytes.fromhex(KEY.decode()), causes.DECODED_HEX, ()),
    (base64.b64encode(SECRET), causes.ENCODED_BASE64, ()),
    (SECRET.hex().encode(), causes.ENCODED_HEX, ()),
    (SECRET.upper(), causes.OTHER_CASE, ()),
    (b"whsec_" + KEY.upper(), causes.OTHER_CASE, ()),
    (OTHER + b"," + SECRET, causes.WHOLE_LIST, ()),
    (b"one%2Ctwo-three-four", causes.CUT_SECRET, (b"one,two-three-four",)),
    (b"zs_live_key", causes.other_setting("ZIMSEND_API_KEY"), ()),
    (SECRET, causes.IN_BLANKS, (b" " + SECRET + b"\n",)),
    (SECRET, causes.IN_QUOTES, (b'"' + SECRET + b'"',)),
]


@pytest.mark.parametrize(("signed_with", "expected", "set_here"), SECRETS)
def test_another_secret(signed_with: bytes, expected: Cause, set_here: tuple[bytes, ...]) -> None:
    assert cause(sign(signed_with, BODY), BODY, *set_here) == expected


# --- the body

#: What was signed, what came, and what happened in between.
BODIES: list[tuple[bytes, bytes, Cause]] = [
    (BODY, BODY + b"\n", causes.LINE_END),
    (BODY + b"\n", BODY, causes.LINE_END),
    (BODY + b"\r\n", BODY, causes.LINE_END),
    (LINES, LINES.replace(b"\n", b"\r\n"), causes.LINE_ENDS),
    (LINES.replace(b"\n", b"\r\n"), LINES, causes.LINE_ENDS),
    (LINES.replace(b"\n", b""), LINES, causes.LINE_ENDS),
    (BODY, b" " + BODY + b" ", causes.BLANKS),
    (BODY, b"\xef\xbb\xbf" + BODY, causes.BYTE_ORDER_MARK),
    (b"\xef\xbb\xbf" + BODY, BODY, causes.BYTE_ORDER_MARK),
    (BODY, BODY.decode().encode("latin-1"), causes.CHARSET),
    (BODY.decode().encode("latin-1"), BODY, causes.CHARSET),
    (BODY, BODY.decode("latin-1").encode(), causes.CHARSET),
    (BODY.decode().encode("utf-16-le"), BODY, causes.CHARSET),
    (BODY, BODY.decode().encode("utf-16"), causes.CHARSET),
    (BODY, unicodedata.normalize("NFD", BODY.decode()).encode(), causes.NORMALISED),
    (BODY, gzip.compress(BODY), causes.COMPRESSED),
    (BODY, zlib.compress(BODY), causes.COMPRESSED),
    (gzip.compress(BODY, mtime=0), BODY, causes.COMPRESSED),
    (gzip.compress(BODY, 6, mtime=0), BODY, causes.COMPRESSED),
    (zlib.compress(BODY), BODY, causes.COMPRESSED),
    (BODY, urlencode({"payload": BODY}).encode(), causes.FORM),
    (urlencode({"payload": BODY}).encode(), BODY, causes.FORM),
    (BODY, quote(BODY).encode(), causes.FORM),
    (quote_plus(BODY).encode(), BODY, causes.FORM),
    (BODY, base64.b64encode(BODY), causes.ENCODED_BODY),
    (base64.b64encode(BODY), BODY, causes.ENCODED_BODY),
    (BODY, json.dumps(BODY.decode()).encode(), causes.STRING),
    (json.dumps(BODY.decode()).encode(), BODY, causes.STRING),
    (BODY, json.dumps({"body": BODY.decode()}).encode(), causes.STRING),
    (json.dumps(EVENT["data"], separators=(",", ":")).encode(), BODY, causes.PART),
    (json.dumps(EVENT, separators=(",", ":")).encode(), BODY, causes.ESCAPES),
    (BODY, json.dumps(EVENT, separators=(",", ":")).encode(), causes.ESCAPES),
    (BODY, BODY.replace(b"/", b"\\/"), causes.ESCAPES),
    (BODY.replace(b"/", b"\\/"), BODY, causes.ESCAPES),
    (BODY.replace(b"<", b"\\u003c").replace(b">", b"\\u003e").replace(b"&", b"\\u0026"), BODY,
     causes.ESCAPES),
    (BODY, json.dumps(EVENT).encode(), causes.WRITTEN_ANEW),
    (BODY, json.dumps(EVENT, indent=2).encode(), causes.WRITTEN_ANEW),
    (json.dumps(EVENT).encode(), BODY, causes.WRITTEN_ANEW),
    (json.dumps(EVENT).replace("/", "\\/").encode(), BODY, causes.WRITTEN_ANEW),
    (json.dumps(EVENT, indent=2).encode(), BODY, causes.WRITTEN_ANEW),
    (json.dumps(EVENT, indent=4, ensure_ascii=False).encode(), BODY, causes.WRITTEN_ANEW),
    (json.dumps(EVENT, sort_keys=True).encode(), BODY, causes.WRITTEN_ANEW),
    (b"", BODY, causes.LOST),
]  # fmt: skip


@pytest.mark.parametrize(("signed", "came", "expected"), BODIES)
def test_a_body_that_is_not_the_one_that_was_signed(
    signed: bytes, came: bytes, expected: Cause
) -> None:
    assert cause(sign(SECRET, signed), came) == expected


def test_large_bodies_are_looked_at_only_where_somebody_asks() -> None:
    body = b"x" * (LARGEST + 1)
    assert cause(sign(SECRET, body + b"\n"), body) == causes.too_large(LARGEST)
    assert cause("zz", body) == causes.NOT_HEX
    headers = {"x-webhook-signature": sign(SECRET, body + b"\n")}
    assert diagnose(body, headers, [SECRET], largest=None) == causes.LINE_END


def test_each_known_cause_is_made_here() -> None:
    known = {value.name for value in vars(causes).values() if isinstance(value, Cause)}
    made = {expected.name for _, expected in HEADERS}
    made |= {expected.name for _, expected, _ in SECRETS}
    made |= {expected.name for *_, expected in BODIES}
    assert known - made == {causes.OTHER_HEADER.name, causes.TIMESTAMP.name}
    assert len(known) >= 20


# --- none is named falsely

secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=48)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below),
    max_leaves=8,
)
bodies = st.binary(max_size=200) | json_values.map(
    lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
)
few = settings(max_examples=20)


@few
@given(secrets, secrets, bodies, bodies)
def test_a_strangers_signature_is_another_secrets(
    mine: str, theirs: str, body: bytes, other: bytes
) -> None:
    assume(theirs.lower() not in mine.lower())
    assume(mine.lower() not in theirs.lower())
    stranger = sign(theirs.encode(), other)
    assert cause(stranger, body, mine.encode()) == causes.UNKNOWN
    assert cause(stranger[:50], body, mine.encode()) == causes.NOT_HEX
    assert cause(None, body, mine.encode(), x_signature=stranger) == causes.NO_HEADER
    assert cause(sign(mine.encode(), body + other + b"x{"), body, mine.encode()) == causes.UNKNOWN


def spelt(body: bytes, **how: Any) -> bytes:
    return json.dumps(json.loads(body), **how).encode()


#: What a sender does wrong with a secret and a body.
MISTAKES: list[tuple[Cause, Callable[[bytes, bytes], str]]] = [
    (causes.FITS, sign),
    (causes.BASE64, lambda s, b: base64.b64encode(digest(s, b)).decode()),
    (causes.DOUBLE, lambda s, b: base64.b64encode(sign(s, b).encode()).decode()),
    (causes.PREFIX, lambda s, b: f"v1={sign(s, b)}"),
    (causes.CUT, lambda s, b: sign(s, b)[:60]),
    (causes.other_algorithm("sha512"), lambda s, b: digest(s, b, "sha512").hex()),
    (causes.NOT_KEYED, lambda s, b: hashlib.sha256(b + s).hexdigest()),
    (causes.EXCHANGED, lambda s, b: sign(b, s)),
    (causes.WITH_LINE_END, lambda s, b: sign(s + b"\n", b)),
    (causes.WITH_BLANK, lambda s, b: sign(s + b" ", b)),
    (causes.SIGNED_IN_QUOTES, lambda s, b: sign(b'"' + s + b'"', b)),
    (causes.WITH_PREFIX, lambda s, b: sign(b"whsec_" + s, b)),
    (causes.ENCODED_HEX, lambda s, b: sign(s.hex().encode(), b)),
    (causes.OTHER_CASE, lambda s, b: sign(s.upper(), b)),
    (causes.LINE_END, lambda s, b: sign(s, b + b"\n")),
    (causes.BYTE_ORDER_MARK, lambda s, b: sign(s, b"\xef\xbb\xbf" + b)),
    (causes.CHARSET, lambda s, b: sign(s, b.decode().encode("utf-16-le"))),
    (causes.COMPRESSED, lambda s, b: sign(s, gzip.compress(b, mtime=0))),
    (causes.FORM, lambda s, b: sign(s, urlencode({"payload": b}).encode())),
    (causes.ENCODED_BODY, lambda s, b: sign(s, base64.b64encode(b))),
    (causes.STRING, lambda s, b: sign(s, json.dumps(b.decode()).encode())),
    (causes.ESCAPES, lambda s, b: sign(s, spelt(b, separators=(",", ":")))),
    (causes.WRITTEN_ANEW, lambda s, b: sign(s, spelt(b, indent=2))),
    (causes.LOST, lambda s, b: sign(s, b"")),
    (causes.TIMESTAMP, lambda s, b: sign(s, b"1700000000." + b)),
]


@few
@given(secrets, json_values)
def test_each_mistake_is_named_or_one_that_makes_the_same(secret: str, event: Any) -> None:
    """Such as a text in ASCII, which is written with and without escapes alike."""
    mine = secret.encode()
    text = json.dumps({"event": event}, ensure_ascii=False, separators=(",", ":"))
    body = text.encode("utf-8", "replace")
    for expected, make in MISTAKES:
        signature = make(mine, body)
        named = cause(signature, body, mine, x_timestamp="1700000000")
        assert named == expected or signature in {
            alike(mine, body) for other, alike in MISTAKES if other == named
        }


def test_a_secret_with_nothing_in_it_is_never_tried() -> None:
    for empty in (b'""""""""""""""""', b"                ", b"whsec_          "):
        assert cause(sign(b"", BODY), BODY, empty) == causes.UNKNOWN
    assert cause("a" * 64, b"[" * 60_000) == causes.UNKNOWN
    assert cause("a" * 64, b"\xff\xfe") == causes.UNKNOWN


_WITHOUT_FILES = """
import resource
from receiver.providers.zimsend.diagnosis import diagnose
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
headers = {"x-webhook-signature": "a" * 64, "x-timestamp": "1"}
for body in (b'{"a": "caf\\xc3\\xa9"}', b"\\xef\\xbb\\xbf{}", b"\\xff\\xfe{\\0}\\0", b"a=%7B%7D"):
    print(diagnose(body, headers, [b"a secret of some length"]).told)
"""


def test_no_file_is_needed() -> None:
    """As where connections have taken all: Python loads its rarer codecs at their first use."""
    ran = subprocess.run(
        [sys.executable, "-c", _WITHOUT_FILES], cwd=ROOT, capture_output=True, text=True
    )
    assert not ran.stderr
    assert ran.stdout.splitlines() == [causes.UNKNOWN.told] * 4
