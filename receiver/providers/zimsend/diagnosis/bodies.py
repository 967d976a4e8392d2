"""What a body may have been before something on its way changed it, or its sender did."""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote_to_bytes

from receiver.characters import normalised
from receiver.errors import Unusable
from receiver.providers.zimsend.diagnosis import causes
from receiver.providers.zimsend.diagnosis.causes import Cause
from receiver.strict_json import read_json

#: Bytes that a compressed body may become.
_MOST_UNPACKED = 1_048_576
#: Fields in which a form, or another envelope, has the body.
_ENVELOPES = ("payload", "body", "data", "json")
#: Headers that may have a time which is signed as well, and one of an id.
_TIMES = re.compile(r"(?:.*-)?(?:timestamp|time|date)", re.ASCII)
_IDS = re.compile(r"(?:.*-)?(?:webhook|event|request|svix)-id", re.ASCII)
_SHORT = 100
_ASCII_ESCAPE = re.compile(r"[^\x00-\x7f]")
#: What Go and Rails escape, for HTML.
_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}

Candidates = Iterator[tuple[Cause, bytes]]


def other_bodies(body: bytes) -> Candidates:
    """What may have been signed instead, and why; the cheap ones first."""
    for find in (_ends, _characters, _packed, _encoded, _json):
        yield from ((cause, other) for cause, other in find(body) if other)
    yield causes.LOST, b""


def with_times(body: bytes, headers: Mapping[str, str], signature: str) -> Candidates:
    """The body behind a time, as others than ZimSend sign it.

    :param headers: names in lower case.
    :param signature: the header, which may hold the time itself, as Stripe's does.
    """
    times = re.findall(r"\bt=([0-9]{1,20})\b", signature)
    times += [v for k, v in headers.items() if _TIMES.fullmatch(k) and len(v) <= _SHORT]
    with suppress(Unusable):
        value = read_json(body)
        if isinstance(value, dict) and isinstance(value.get("timestamp"), str | int):
            times.append(str(value["timestamp"])[:_SHORT])
    ids = [v for k, v in headers.items() if _IDS.fullmatch(k) and len(v) <= _SHORT]
    for time in dict.fromkeys(times[:10]):
        fronts = [f"{time}.", time, f"{time}:", f"{time}\n", f"v0:{time}:"]
        fronts += [f"{own}.{time}." for own in ids[:3]]
        for front in fronts:
            yield causes.TIMESTAMP, front.encode("utf-8", "replace") + body
        yield causes.TIMESTAMP, body + b"." + time.encode("utf-8", "replace")


def _ends(body: bytes) -> Candidates:
    for end in (b"\n", b"\r\n"):
        yield causes.LINE_END, body + end
    yield causes.LINE_END, body.rstrip(b"\r\n")
    yield causes.BLANKS, body.strip()
    yield causes.LINE_ENDS, body.replace(b"\r\n", b"\n")
    yield causes.LINE_ENDS, body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield causes.LINE_ENDS, body.replace(b"\r", b"").replace(b"\n", b"")
    yield causes.BYTE_ORDER_MARK, body.removeprefix(codecs.BOM_UTF8)
    yield causes.BYTE_ORDER_MARK, codecs.BOM_UTF8 + body


_READ_AS = ("utf-8", "utf-16", "cp1252", "latin-1")
_WRITTEN_AS = ("utf-8", "cp1252", "latin-1", "utf-16-le", "utf-16-be", "utf-16")
for _name in {*_READ_AS, *_WRITTEN_AS}:
    codecs.lookup(_name)  # loads it: later there may be no file left for that


def _characters(body: bytes) -> Candidates:
    for name in _READ_AS:
        try:
            text = body.decode(name)
        except UnicodeDecodeError:
            continue
        for other in _WRITTEN_AS:
            try:
                yield causes.CHARSET, text.encode(other)
            except UnicodeEncodeError:
                continue
        if name == "utf-8":
            yield causes.NORMALISED, normalised("NFC", text).encode()
            yield causes.NORMALISED, normalised("NFD", text).encode()


def _packed(body: bytes) -> Candidates:
    """Compressed, by the usual levels and as the usual systems write it; or taken apart."""
    for bits in (47, -15):
        inflating = zlib.decompressobj(bits)
        try:
            yield causes.COMPRESSED, inflating.decompress(body, _MOST_UNPACKED)
        except zlib.error:
            continue
    for level in (6, 9, 1):
        deflating = zlib.compressobj(level, wbits=-15)
        raw = deflating.compress(body) + deflating.flush()
        end = zlib.crc32(body).to_bytes(4, "little") + (len(body) % 2**32).to_bytes(4, "little")
        extra = {6: 0, 9: 2, 1: 4}[level]
        for flag in {0, extra}:
            for system in (3, 255, 0, 10, 19):
                front = bytes([31, 139, 8, 0, 0, 0, 0, 0, flag, system])
                yield causes.COMPRESSED, front + raw + end
        yield causes.COMPRESSED, zlib.compress(body, level)
        yield causes.COMPRESSED, raw


def _encoded(body: bytes) -> Candidates:
    """As forms and URLs have it, and in base64: put so, or taken out."""
    for quoted in (quote_plus(body), quote(body, safe=""), quote(body)):
        yield causes.FORM, quoted.encode()
        for name in _ENVELOPES:
            yield causes.FORM, f"{name}={quoted}".encode()
    yield causes.FORM, unquote_to_bytes(body)
    yield causes.FORM, unquote_to_bytes(body.replace(b"+", b" "))
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        pairs = []
    for name, value in pairs:
        yield causes.FORM, (value or name).encode("utf-8", "surrogateescape")
    yield causes.ENCODED_BODY, base64.b64encode(body)
    with suppress(binascii.Error, ValueError):
        yield causes.ENCODED_BODY, base64.b64decode(body, validate=True)


def _json(body: bytes) -> Candidates:
    try:
        value = read_json(body)
    except Unusable:
        return
    if isinstance(value, str):
        yield causes.STRING, _bytes(value)
    text = body.removeprefix(codecs.BOM_UTF8).decode()
    yield causes.STRING, json.dumps(text, ensure_ascii=False).encode()
    yield causes.STRING, json.dumps(text).encode()
    yield from _escaped(text)
    for one in _spellings(value):
        yield causes.WRITTEN_ANEW, one
    if isinstance(value, dict):
        for name in _ENVELOPES:
            part = value.get(name)
            if isinstance(part, str):
                yield causes.STRING, _bytes(part)
            elif part:
                for one in _spellings(part):
                    yield causes.PART, one


def _escaped(text: str) -> Candidates:
    """The same JSON with other characters written as escapes, and nothing else changed."""
    ascii_text = _ASCII_ESCAPE.sub(lambda found: json.dumps(found[0])[1:-1], text)
    upper = re.sub(r"\\u[0-9a-f]{4}", lambda found: "\\u" + found[0][2:].upper(), ascii_text)
    plain = re.sub(r"(?:\\u[0-9a-fA-F]{4})+", _plain, text)
    for one in dict.fromkeys((ascii_text, upper, plain, text)):
        slashes = one.replace("\\/", "/")
        html = re.sub("[<>&\u2028\u2029]", lambda found: _HTML[found[0]], one)
        for spelt in (one, slashes, slashes.replace("/", "\\/"), html):
            if spelt != text:
                yield causes.ESCAPES, _bytes(spelt)


def _plain(found: re.Match[str]) -> str:
    """Escapes as the characters that they are; those that JSON needs stay."""
    characters = json.loads(f'"{found[0]}"')
    return "".join(
        json.dumps(c)[1:-1] if c in '"\\' or ord(c) < 32 or "\ud800" <= c <= "\udfff" else c
        for c in characters
    )


def _spellings(value: Any) -> Iterator[bytes]:
    """The ways in which the usual libraries write a value."""
    for ascii_only in (False, True):
        for separators in ((",", ":"), (", ", ": ")):
            for in_order in (False, True):
                text = json.dumps(
                    value, ensure_ascii=ascii_only, separators=separators, sort_keys=in_order
                )
                yield _bytes(text)
                if "/" in text:
                    yield _bytes(text.replace("/", "\\/"))
        for indent in (2, 4, "\t"):
            yield _bytes(json.dumps(value, ensure_ascii=ascii_only, indent=indent))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
