"""Why a signature does not fit: known mistakes are tried one after the other. Pure.

For the log and for people who look for a mistake, never for whether an event is let in.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from receiver.errors import Unusable
from receiver.providers.zimsend.webhook import SIGNATURE
from receiver.strict_json import read_json

#: Bytes of a body that are looked at: all of this is computed for whoever sends something.
LARGEST = 64 * 1024

NO_HEADER = f"there is no header {SIGNATURE}"
SEVERAL = f"several headers {SIGNATURE} differ"
NOT_HEX = "the signature is not 64 hexadecimal digits"
UNKNOWN = "well formed, but fits no secret that is set"
TOO_LARGE = f"{UNKNOWN}; bodies over {LARGEST} bytes are not looked at"

#: Bytes of what is made of a secret: an empty key would be anybody's.
_SHORTEST = 8
_HEX = re.compile(r"[0-9a-fA-F]+", re.ASCII)
_ALGORITHMS = {40: "sha1", 96: "sha384", 128: "sha512", 32: "md5"}


def likely_cause(body: bytes, headers: Mapping[str, str], secrets: Sequence[bytes]) -> str:
    """What is most likely wrong with a request whose signature was refused.

    :param headers: names in lower case; several of one name are joined by commas.
    :returns: a phrase that holds nothing of secrets, signature and body.
    """
    header = headers.get(SIGNATURE.lower(), "").strip()
    if not header:
        return NO_HEADER
    claims = {part.strip(" \t") for part in header.split(",")}
    if len(claims) > 1:
        return SEVERAL
    (claim,) = claims
    name, _, rest = claim.rpartition("=") if claim.lower().startswith("sha") else ("", "", claim)
    if len(body) > LARGEST:
        return TOO_LARGE if _HEX.fullmatch(rest) and len(rest) == 64 else NOT_HEX
    if not _HEX.fullmatch(rest):
        return _not_hex(body, claim.removeprefix(f"{name}="), secrets)
    algorithm = _ALGORITHMS.get(len(rest))
    if algorithm is not None:
        made = any(_fits(rest, secret, body, algorithm) for secret in secrets)
        return f"it is signed with {algorithm.upper()}, not with SHA-256" if made else NOT_HEX
    if len(rest) != 64:
        return NOT_HEX
    for told, secret in _other_secrets(secrets):
        if _fits(rest, secret, body):
            return told
    for told, other in _other_bodies(body):
        if any(_fits(rest, secret, other) for secret in secrets):
            return told
    return UNKNOWN


def _fits(claim: str, secret: bytes, body: bytes, algorithm: str = "sha256") -> bool:
    return hmac.compare_digest(hmac.new(secret, body, algorithm).hexdigest(), claim.lower())


def _not_hex(body: bytes, claim: str, secrets: Sequence[bytes]) -> str:
    for decode in (base64.b64decode, base64.urlsafe_b64decode):
        try:
            digest = decode(claim + "=" * (-len(claim) % 4))
        except (binascii.Error, ValueError):
            continue
        if any(_fits(digest.hex(), secret, body) for secret in secrets):
            return "the signature is in base64, not in hexadecimal digits"
    return NOT_HEX


def _other_secrets(secrets: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """What a secret may have been, or become, with one who copied it."""
    for secret in secrets:
        bare = secret.strip()
        unquoted = bare[1:-1] if bare[:1] == bare[-1:] and bare[:1] in (b'"', b"'") else bare
        core = unquoted.removeprefix(b"whsec_")
        for told, less in (
            ("the secret that is set has blanks around it", bare),
            ("the secret that is set has quotes around it", unquoted),
            ("signed with the secret without its `whsec_`", core),
        ):
            if len(less) >= _SHORTEST:
                yield told, less
        for told, with_more in (
            ("signed with the secret and a line's end", secret + b"\n"),
            ("signed with the secret and a line's end", secret + b"\r\n"),
            ("signed with the secret and a blank", secret + b" "),
            ("signed with the secret and a blank", b" " + secret),
            ("signed with the secret in quotes", b'"' + secret + b'"'),
            ("signed with the secret in quotes", b"'" + secret + b"'"),
            ("signed with `whsec_` in front of the secret", b"whsec_" + secret),
        ):
            yield told, with_more
        for told, decode in _DECODINGS:
            try:
                decoded = decode(core)
            except (binascii.Error, ValueError):
                continue
            if len(decoded) >= _SHORTEST:
                yield told, decoded


_DECODINGS: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    (
        "signed with the secret decoded from base64",
        lambda s: base64.b64decode(s + b"=" * (-len(s) % 4)),
    ),
    ("signed with the secret decoded from hexadecimal digits", binascii.unhexlify),
)

_WRITTEN_ANEW = "the body was changed on its way: its JSON was read and written again"
_LINE_END = "the body was changed on its way: a line's end at its end"


def _other_bodies(body: bytes) -> Iterator[tuple[str, bytes]]:
    """What a body may have been before something on its way changed it."""
    for end in (b"\n", b"\r\n"):
        yield _LINE_END, body + end
    yield _LINE_END, body.rstrip(b"\r\n")
    yield "the body was changed on its way: blanks around it", body.strip()
    yield "the body was changed on its way: its line ends", body.replace(b"\r\n", b"\n")
    yield "the body was changed on its way: its line ends", body.replace(b"\n", b"\r\n")
    yield "the body was changed on its way: a byte order mark", body.removeprefix(b"\xef\xbb\xbf")
    yield "the body was lost on its way", b""
    try:
        value = read_json(body)
    except Unusable:
        return
    for ascii_only in (False, True):
        for separators in ((",", ":"), (", ", ": ")):
            for in_order in (False, True):
                text = json.dumps(
                    value, ensure_ascii=ascii_only, separators=separators, sort_keys=in_order
                )
                texts = [text, text.replace("/", "\\/")] if "/" in text else [text]
                for one in texts:
                    yield _WRITTEN_ANEW, one.encode("utf-8", "surrogatepass")
        for indent in (2, 4):
            text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
            yield _WRITTEN_ANEW, text.encode("utf-8", "surrogatepass")
