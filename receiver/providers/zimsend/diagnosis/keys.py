"""What a secret may have been, or become, with one who copied it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence

from receiver.providers.zimsend.diagnosis import causes
from receiver.providers.zimsend.diagnosis.causes import Cause

#: Bytes of what is made of a secret: an empty key would be anybody's.
SHORTEST = 8
_PREFIX = b"whsec_"


def other_keys(secrets: Sequence[bytes]) -> Iterator[tuple[Cause, bytes]]:
    """What may have been signed with instead, and why."""
    for secret in secrets:
        yield from ((cause, key) for cause, key in _less(secret) if len(key) >= SHORTEST)
        yield from _more(secret)
    if len(secrets) > 1:
        for between in (b",", b", "):
            yield causes.WHOLE_LIST, between.join(secrets)


def _less(secret: bytes) -> Iterator[tuple[Cause, bytes]]:
    bare = secret.strip()
    unquoted = bare[1:-1] if bare[:1] == bare[-1:] and bare[:1] in (b'"', b"'") else bare
    core = unquoted.removeprefix(_PREFIX)
    if len(core) < SHORTEST:
        return
    yield causes.IN_BLANKS, bare
    yield causes.IN_QUOTES, unquoted
    yield causes.WITHOUT_PREFIX, core
    for decode, cause in (
        (base64.b64decode, causes.DECODED_BASE64),
        (base64.urlsafe_b64decode, causes.DECODED_BASE64),
        (binascii.unhexlify, causes.DECODED_HEX),
    ):
        padded = core if cause is causes.DECODED_HEX else core + b"=" * (-len(core) % 4)
        try:
            yield cause, decode(padded)
        except (binascii.Error, ValueError):
            continue
    changed = [secret.lower(), secret.upper()]
    if secret.startswith(_PREFIX):  # which is in lower case wherever it is
        changed += [_PREFIX + core.lower(), _PREFIX + core.upper()]
    yield from ((causes.OTHER_CASE, key) for key in changed if key != secret)


def _more(secret: bytes) -> Iterator[tuple[Cause, bytes]]:
    for end in (b"\n", b"\r\n", b"\r"):
        yield causes.WITH_LINE_END, secret + end
    yield causes.WITH_BLANK, secret + b" "
    yield causes.WITH_BLANK, b" " + secret
    for quote in (b'"', b"'", b"`"):
        yield causes.SIGNED_IN_QUOTES, quote + secret + quote
    yield causes.WITH_PREFIX, _PREFIX + secret
    yield causes.ENCODED_BASE64, base64.b64encode(secret)
    yield causes.ENCODED_HEX, secret.hex().encode()
    if b"," in secret:
        yield causes.CUT_SECRET, secret.replace(b",", b"%2C")
