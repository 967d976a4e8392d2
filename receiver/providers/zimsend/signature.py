"""The provider's signature: hex of HMAC-SHA256 over the exact bytes of the body."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from itsdangerous import HMACAlgorithm

#: `HMACAlgorithm` is the bare HMAC with a comparison in constant time. `Signer` would derive
#: another key and append a separator.
_HMAC = HMACAlgorithm(hashlib.sha256)
_HEX_DIGEST = re.compile(r"(?:sha256=)?([0-9a-fA-F]{64})", re.ASCII)


def sign(secret: bytes, body: bytes) -> str:
    """The value of `X-Webhook-Signature` for this body: 64 lowercase hex digits."""
    return _HMAC.get_signature(secret, body).hex()


def verify(secrets: Sequence[bytes], body: bytes, header: str | None) -> bool:
    """Whether the header signs these bytes with one of the secrets.

    Every secret is tried, also after one has matched, so that the time taken does not tell
    which one is in use.

    :param header: the header as the server joined it (several are joined by commas; they count
        as one if all say the same), or `None`.
    """
    claimed = _read(header)
    if claimed is None:
        return False
    matches: Iterable[bool] = [_HMAC.verify_signature(s, body, claimed) for s in secrets]
    return any(matches)


def _read(header: str | None) -> bytes | None:
    """The 32 bytes that the header claims; `None` for anything malformed or ambiguous."""
    if not header:
        return None
    claims = set()
    for part in header.split(","):
        match = _HEX_DIGEST.fullmatch(part.strip(" \t"))
        if match is None:
            return None
        claims.add(bytes.fromhex(match[1]))
    return claims.pop() if len(claims) == 1 else None
