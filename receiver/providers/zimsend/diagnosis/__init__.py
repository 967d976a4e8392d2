"""Why a signature does not fit: known mistakes are tried one after the other. Pure.

For the log and for people who look for a mistake, never for whether an event is let in.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from receiver.providers.zimsend.diagnosis import bodies, causes, keys
from receiver.providers.zimsend.diagnosis.causes import Cause
from receiver.providers.zimsend.diagnosis.claims import Claim, beginnings, claims, differ
from receiver.providers.zimsend.webhook import SIGNATURE, verify

__all__ = ["LARGEST", "Cause", "causes", "diagnose"]

#: Bytes of a body that are looked at: all of this is computed for whoever sends something.
LARGEST = 64 * 1024
#: Headers that are looked at.
_MOST_HEADERS = 100


def diagnose(
    body: bytes,
    headers: Mapping[str, str],
    secrets: Sequence[bytes],
    others: Mapping[str, bytes] | None = None,
    largest: int | None = LARGEST,
) -> Cause:
    """The first known mistake under which a request's signature fits one of the secrets.

    :param headers: names in lower case; several of one name are joined by commas.
    :param others: secrets that are there for something else, by the names of their settings.
    :param largest: bytes of a body above which nobody looks; `None`: of all.
    """
    header = headers.get(SIGNATURE.lower(), "").strip()
    if not header:
        return _elsewhere(body, headers, secrets)
    if verify(secrets, body, header):
        return causes.FITS
    claimed = claims(header)
    if differ(header):
        return causes.SEVERAL
    if largest is not None and len(body) > largest:
        well_formed = any(claim.form is None for claim in claimed)
        return causes.too_large(largest) if well_formed else causes.NOT_HEX
    found = next(_fitting(claimed, body, headers, header, secrets, others or {}), None)
    found = found or _cut(header, body, secrets)
    if found is not None:
        return found
    return causes.UNKNOWN if any(claim.form is None for claim in claimed) else causes.NOT_HEX


def _fitting(
    claimed: Sequence[Claim],
    body: bytes,
    headers: Mapping[str, str],
    header: str,
    secrets: Sequence[bytes],
    others: Mapping[str, bytes],
) -> Iterator[Cause]:
    for claim in claimed:
        if any(_fits(claim, secret, body, claim.algorithm) for secret in secrets):
            if claim.algorithm != "sha256":
                yield causes.other_algorithm(claim.algorithm)
            elif claim.form is not None:
                yield claim.form
    # Whoever signs a time as well writes the signature in a form of its own.
    yield from _of_bodies(claimed, bodies.with_times(body, headers, header), secrets)
    well_formed = [claim for claim in claimed if claim.form is None]
    if not well_formed:
        return
    for cause, key in chain(
        keys.other_keys(secrets),
        (
            (causes.other_setting(name), secret)
            for name, secret in others.items()
            if len(secret) >= keys.SHORTEST
        ),
    ):
        if any(_fits(claim, key, body) for claim in well_formed):
            yield cause
    for secret in secrets:
        yield from _misused(well_formed, secret, body)
    yield from _of_bodies(well_formed, bodies.other_bodies(body), secrets)


def _of_bodies(
    claimed: Sequence[Claim],
    candidates: Iterator[tuple[Cause, bytes]],
    secrets: Sequence[bytes],
) -> Iterator[Cause]:
    for cause, other in candidates:
        for secret in secrets:
            if any(_fits(claim, secret, other) for claim in claimed):
                yield cause


def _misused(claimed: Sequence[Claim], secret: bytes, body: bytes) -> Iterator[Cause]:
    """No HMAC at all, or one of which the two parts were exchanged."""
    if len(body) >= keys.SHORTEST and any(_fits(claim, body, secret) for claim in claimed):
        yield causes.EXCHANGED
    for hashed in (body, secret + body, body + secret):
        digest = hashlib.sha256(hashed).digest()
        if any(hmac.compare_digest(claim.digest, digest) for claim in claimed):
            yield causes.NOT_KEYED


def _elsewhere(body: bytes, headers: Mapping[str, str], secrets: Sequence[bytes]) -> Cause:
    """There is no header of the right name: perhaps the signature is in one of another."""
    digests = [hmac.digest(secret, body, "sha256") for secret in secrets]
    for value in list(headers.values())[:_MOST_HEADERS]:
        for claim in claims(value):
            if any(hmac.compare_digest(claim.digest, digest) for digest in digests):
                return causes.OTHER_HEADER
    return causes.NO_HEADER


def _cut(header: str, body: bytes, secrets: Sequence[bytes]) -> Cause | None:
    digests = [hmac.digest(secret, body, "sha256").hex() for secret in secrets]
    for part in beginnings(header):
        if any(digest.startswith(part) or digest.endswith(part) for digest in digests):
            return causes.CUT
    return None


def _fits(claim: Claim, key: bytes, body: bytes, algorithm: str = "sha256") -> bool:
    return hmac.compare_digest(hmac.digest(key, body, algorithm), claim.digest)
