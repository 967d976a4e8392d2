"""The signature: what is accepted, and that nothing else is."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.providers.zimsend.webhook import sign, verify

steady = settings(derandomize=True, deadline=None, max_examples=200)

SECRET = b"whsec_0123456789abcdef"
OTHER = b"whsec_fedcba9876543210"
BODY = b'{"event": "sms.sent"}'
GOOD = hmac.new(SECRET, BODY, hashlib.sha256).hexdigest()
OF_ANOTHER_BODY = hmac.new(SECRET, BODY + b" ", hashlib.sha256).hexdigest()


def test_it_is_the_documented_hmac_in_lower_case() -> None:
    assert sign(SECRET, BODY) == GOOD


def test_a_known_answer() -> None:
    """RFC 4231, test case 2: not computed by the code that the service itself uses."""
    known = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert sign(b"Jefe", b"what do ya want for nothing?") == known


@pytest.mark.parametrize(
    "header",
    {
        "lower case": GOOD,
        "upper case": GOOD.upper(),
        "mixed case": GOOD[:32].upper() + GOOD[32:],
        "prefix": f"sha256={GOOD}",
        "prefix and upper case": f"sha256={GOOD.upper()}",
        "blanks around it": f" \t{GOOD} ",
        "twice the same": f"{GOOD},{GOOD}",
        "twice the same, written differently": f"{GOOD}, sha256={GOOD.upper()}",
    }.items(),
    ids=lambda case: case[0],
)
def test_accepted(header: tuple[str, str]) -> None:
    assert verify([SECRET], BODY, header[1]) is True


@pytest.mark.parametrize(
    "header",
    {
        "none": None,
        "empty": "",
        "blank": "   ",
        "only the prefix": "sha256=",
        "of another body": OF_ANOTHER_BODY,
        "two that differ": f"{GOOD},{OF_ANOTHER_BODY}",
        "two that differ, the other way": f"{OF_ANOTHER_BODY},{GOOD}",
        "a good one and an empty one": f"{GOOD},",
        "an empty one and a good one": f",{GOOD}",
        "a good one and nonsense": f"{GOOD}, x",
        "separated by a blank": f"{GOOD} {GOOD}",
        "a digit short": GOOD[:-1],
        "a byte short": GOOD[:-2],
        "a digit too long": GOOD + "0",
        "a byte too long": GOOD + "00",
        "half": GOOD[:32],
        "not hex": "g" * 64,
        "not hex at the end": GOOD[:-1] + "g",
        "blank inside": GOOD[:32] + " " + GOOD[32:],
        "line break behind it": GOOD + "\n",
        "NUL behind it": GOOD + "\x00",
        "0x in front": "0x" + GOOD[2:],
        "quotes": f'"{GOOD}"',
        "another algorithm": f"sha1={GOOD}",
        "prefix twice": f"sha256=sha256={GOOD}",
        "not ASCII": "é" * 64,
        "full-width digits": "０" * 64,
        "lone surrogates": "\ud800" * 64,
        "base64": "A" * 43 + "=",
        "very long": "a" * 100_000,
    }.items(),
    ids=lambda case: case[0],
)
def test_refused(header: tuple[str, str | None]) -> None:
    assert verify([SECRET], BODY, header[1]) is False


@pytest.mark.parametrize(
    "secrets", [[SECRET], [SECRET, OTHER], [OTHER, SECRET], [OTHER] * 5 + [SECRET]]
)
def test_any_of_several_secrets_may_match(secrets: list[bytes]) -> None:
    assert verify(secrets, BODY, GOOD) is True


@pytest.mark.parametrize("secrets", [[], [OTHER], [OTHER, SECRET[:-1], SECRET + b"\x00x"]])
def test_no_secret_matches(secrets: list[bytes]) -> None:
    assert verify(secrets, BODY, GOOD) is False


@pytest.mark.parametrize("number", range(16))
def test_of_two_that_differ_none_counts(number: int) -> None:
    """Not even if each of them is good by one of the secrets."""
    also_good = sign(b"another secret %d" % number, BODY)
    secrets = [SECRET, b"another secret %d" % number]
    assert verify(secrets, BODY, also_good) is True
    assert verify(secrets, BODY, f"{GOOD},{also_good}") is False
    assert verify([SECRET], BODY, f"{also_good},{GOOD}") is False


def test_the_empty_body_has_a_signature_too() -> None:
    assert verify([SECRET], b"", sign(SECRET, b"")) is True
    assert verify([SECRET], b"", GOOD) is False


@steady
@given(st.binary(min_size=1, max_size=100), st.binary(max_size=300))
def test_what_is_signed_verifies(secret: bytes, body: bytes) -> None:
    assert verify([secret], body, sign(secret, body)) is True


@steady
@given(st.binary(min_size=1, max_size=60), st.data())
def test_any_changed_bit_of_the_body_is_noticed(body: bytes, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, len(body) * 8 - 1))
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8
    assert verify([SECRET], bytes(changed), sign(SECRET, body)) is False


@pytest.mark.parametrize("bit", range(256))
def test_any_changed_bit_of_the_signature_is_noticed(bit: int) -> None:
    changed = bytearray(bytes.fromhex(GOOD))
    changed[bit // 8] ^= 1 << bit % 8
    assert verify([SECRET], BODY, changed.hex()) is False


@steady
@given(st.integers(0, len(SECRET) * 8 - 1))
def test_any_changed_bit_of_the_secret_is_noticed(bit: int) -> None:
    changed = bytearray(SECRET)
    changed[bit // 8] ^= 1 << bit % 8
    assert verify([bytes(changed)], BODY, GOOD) is False


@steady
@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_no_header_is_an_error(header: str) -> None:
    assert verify([SECRET], BODY, header) is False
