"""What a header claims, in whatever form: the digests that somebody may have meant."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple
from urllib.parse import unquote

from receiver.providers.zimsend.diagnosis import causes
from receiver.providers.zimsend.diagnosis.causes import Cause

#: By the bytes of a digest.
ALGORITHMS = {16: "md5", 20: "sha1", 28: "sha224", 32: "sha256", 48: "sha384", 64: "sha512"}
_PLAIN = re.compile(r"(?:sha256=)?([0-9a-fA-F]{64})", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]{32,128}", re.ASCII)
_PIECE = re.compile(r"[0-9a-fA-F]+", re.ASCII)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,15}\s*[=: ,]\s*", re.ASCII)
_BETWEEN = re.compile(r"[\s:-]", re.ASCII)
#: Characters of a header, and pieces of it, that are looked at.
_LONGEST, _MOST = 500, 10
#: Hexadecimal digits by which the beginning of a digest is known for what it is.
_ENOUGH = 16


class Claim(NamedTuple):
    """
    :param form: what is wrong with how it is written; `None` for nothing.
    """

    digest: bytes
    form: Cause | None

    @property
    def algorithm(self) -> str:
        return ALGORITHMS[len(self.digest)]


def claims(header: str) -> list[Claim]:
    """All digests that a header may mean, as written most probably first."""
    found: dict[bytes, Claim] = {}
    header = header.strip()[:_LONGEST]
    # Two digests in one header are ambiguous, so neither counts; `t=…,v1=…` has one.
    pieces = [header, *(part.strip() for part in header.split(",")[:_MOST])]
    for piece in pieces:
        for claim in _read(piece):
            found.setdefault(claim.digest, claim)
    return list(found.values())


def differ(header: str) -> bool:
    """Whether several headers claim different things, each as it should be written."""
    parts = {part.strip(" \t") for part in header.split(",")}
    return len(parts) > 1 and all(map(_PLAIN.fullmatch, parts))


def beginnings(header: str) -> Iterator[str]:
    """Hexadecimal digits that may be a part of a digest, in lower case."""
    for piece in header[:_LONGEST].split(","):
        bare = _NAME.sub("", piece.strip(), 1)
        if _PIECE.fullmatch(bare) and _ENOUGH <= len(bare) < 64:
            yield bare.lower()


def _read(piece: str) -> Iterator[Claim]:
    plain = _PLAIN.fullmatch(piece)
    if plain is not None:
        yield Claim(bytes.fromhex(plain[1]), None)
        return
    bare = _NAME.sub("", piece, 1)
    joined = (_BETWEEN.sub("", text) for text in (piece, bare))
    for hexes in chain.from_iterable(map(_HEX.findall, (piece, *joined))):
        if len(hexes) // 2 in ALGORITHMS and len(hexes) % 2 == 0:
            yield Claim(bytes.fromhex(hexes), causes.PREFIX)
            yield from _inside(bytes.fromhex(hexes))
    for text in dict.fromkeys((piece, bare, unquote(piece).strip("\"'"))):
        yield from _base64(text)


def _base64(text: str) -> Iterator[Claim]:
    for decode in (base64.b64decode, base64.urlsafe_b64decode):
        try:
            decoded = decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            continue
        if len(decoded) in ALGORITHMS:
            yield Claim(decoded, causes.BASE64)
        yield from _inside(decoded)


def _inside(decoded: bytes) -> Iterator[Claim]:
    """A digest whose text was encoded once more."""
    try:
        text = decoded.decode("ascii")
    except UnicodeDecodeError:
        return
    if _HEX.fullmatch(text) and len(text) // 2 in ALGORITHMS and len(text) % 2 == 0:
        yield Claim(bytes.fromhex(text), causes.DOUBLE)
    else:
        try:
            digest = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return
        if len(digest) in ALGORITHMS:
            yield Claim(digest, causes.DOUBLE)
