"""How the text of a setting is read, kind by kind. Pure.

Each function raises `ValueError` with what is wrong, and never with a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from receiver import ids, phone
from receiver.calling import call
from receiver.environment import clean
from receiver.times import DAY

#: A token in a path is the whole of its secret, and travels in each request.
SHORTEST_TOKEN = 24
#: HMAC-SHA256 is as strong as its key; a shorter one can be guessed.
SHORTEST_SECRET = 16
#: What signs the dashboard's sessions, as the field asks for keys of HMAC-SHA256.
SHORTEST_KEY = 32


def secrets(text: str) -> tuple[bytes, ...]:
    if not text:
        return ()
    secrets = tuple(
        clean(part).replace("%2C", ",").encode("utf-8", "surrogateescape")
        for part in text.split(",")
    )
    for position, secret in enumerate(secrets, 1):
        if len(secret) < SHORTEST_SECRET:
            which = f"secret {position} of {len(secrets)}" if len(secrets) > 1 else "the secret"
            raise ValueError(
                f"{which} is shorter than {SHORTEST_SECRET} bytes, so it can be guessed; take the "
                "one that ZimSend shows for the webhook, or a long random one "
                "(a comma inside a secret is written %2C)"
            )
    return secrets


def password(text: str) -> str | None:
    if not text.isprintable():
        raise ValueError("holds what nobody can type into a form, or is not UTF-8")
    return text or None


def keys(text: str) -> tuple[bytes, ...]:
    keys = tuple(
        clean(part).replace("%2C", ",").encode("utf-8", "surrogateescape")
        for part in (text.split(",") if text else ())
    )
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise ValueError(
            f"a key has {SHORTEST_KEY} bytes or more; `openssl rand -hex 32` makes one (a comma "
            "inside a key is written %2C)"
        )
    return keys


def tokens(text: str) -> tuple[bytes, ...]:
    tokens = tuple(clean(part) for part in text.split(",")) if text else ()
    for token in tokens:
        if not re.fullmatch(rf"[A-Za-z0-9._~-]{{{SHORTEST_TOKEN},}}", token):
            raise ValueError(
                f"a token has {SHORTEST_TOKEN} characters or more, of A-Z a-z 0-9 . _ ~ - alone, "
                "since it is a part of an address; `openssl rand -hex 24` makes one"
            )
    return tuple(token.encode() for token in tokens)


def names(text: str) -> tuple[str, ...]:
    names = tuple(clean(part).lower() for part in text.split(",")) if text else ()
    for name in names:
        if not name:
            raise ValueError("must be names of providers, separated by commas")
        if names.count(name) > 1:
            raise ValueError(f"{name!r} stands there twice")
    return names


def number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text.strip()) or not least <= int(text) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(text)

    return read


def port(text: str) -> int:
    try:
        return number(1, 65_535)(text)
    except ValueError as error:
        raise ValueError(f"{error}, and nothing else: an address goes into BIND") from None


def bind(text: str) -> str | None:
    address = text.strip()
    if not address:
        return None
    try:
        return str(ipaddress.ip_address(address.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError(
            "must be an IP address of this machine, like 127.0.0.1 or ::1; the port goes into PORT"
        ) from None


def one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        choice = text.strip().lower()
        if choice not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return choice

    return read


def flag(text: str) -> bool:
    return one_of("0", "1")(text) == "1"


def database_url(text: str) -> str:
    if not re.match(r"[a-z0-9+]+://", text):
        raise ValueError("must be a URL like sqlite:///receiver.db or postgres://...")
    return text


def schema(text: str) -> str:
    if text and not re.fullmatch("[a-z_][a-z0-9_]{0,39}", text):
        raise ValueError(
            "not a plain name: a to z, digits and _, 40 characters at most, no digit in front"
        )
    if text.startswith("pg_") or text == "information_schema":
        raise ValueError("a schema of PostgreSQL's own: take another name")
    if text == "public":
        raise ValueError(
            "no schema of the service's own: leave it out, and the tables are where the user's "
            "search_path says, as in public"
        )
    return text


def module_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is not the dotted name of a module")
        if names.count(name) > 1:
            raise ValueError(f"{name!r} stands there twice")
    return names


def header(text: str) -> str | None:
    value = text.strip()
    if not value.isprintable() or not value.isascii():
        raise ValueError("holds what no HTTP header can; copy it again from the provider")
    return value or None


def sender(text: str) -> str | None:
    sender = header(text)
    if sender is not None and not 3 <= len(sender) <= 15:
        raise ValueError("must have 3 to 15 characters")
    return sender


def credential(text: str) -> bytes | None:
    credential = header(text)
    return None if credential is None else credential.encode()


def bearer_token(text: str) -> bytes | None:
    token = credential(text)
    if token is not None and len(token) < SHORTEST_SECRET:
        raise ValueError(
            f"is shorter than {SHORTEST_SECRET} characters, so it can be guessed; "
            "`openssl rand -hex 24` makes one"
        )
    return token


def token_id(text: str) -> bytes | None:
    token_id = credential(text)
    if token_id is not None and b":" in token_id:
        raise ValueError("holds a colon: give the token's id alone, like token-ABC123")
    return token_id


def extension(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise ValueError("must be one of sipgate's SMS extensions, like s0")
    return text


def address(text: str) -> str:
    """The address of a service, without a slash at its end.

    https, since credentials and SMS travel there; http only where nobody can listen.
    """
    address = text.strip().rstrip("/")
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    # No credentials, no query, nothing that an address has encoded.
    if not host or not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~%/-]*)?", address):
        raise ValueError("must be an address like https://sms.example.com")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("must begin with https:// (http:// is for this machine itself only)")
    return address


def is_loopback(host: str) -> bool:
    """Whether this is the machine's own address, which others cannot reach."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def public_url(text: str) -> str | None:
    if not text.strip():
        return None
    public = address(text)
    if found := re.search(rf"/webhooks/+(?:{'|'.join(ids.NAMES)})(?=/|$)", public):
        raise ValueError(f"must be the address of the whole service, without {found[0]}")
    return public


def alert_urls(text: str) -> tuple[str, ...]:
    # A comma may also be inside of an address: then no scheme follows.
    urls = re.split(r",\s*(?=['\"]?[A-Za-z][A-Za-z0-9+.-]*://)", text) if text else []
    urls = [clean(url) for url in urls]
    if not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[!-~]+", url) for url in urls):
        raise ValueError(
            "must be addresses of apprise like mailto://… or slack://…, separated by commas, "
            f"without blanks; `{call('alerts test')}` tries them"
        )
    return tuple(urls)


def heartbeat_url(text: str) -> str | None:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if text and not (usable and re.fullmatch(r"[!-~]+", text)):
        raise ValueError("must be an address like https://hc-ping.com/...")
    return text or None


def zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError):  # a name may also be that of a folder
        for name in available_timezones():
            if name.casefold() == text.casefold():
                return ZoneInfo(name)
    raise ValueError("must be the name of a time zone, like Europe/Paris or UTC")


def country(text: str) -> str | None:
    code = text.strip().upper()
    if code and not phone.is_country(code):
        raise ValueError("must be the two letters of a country, like FR")
    return code or None


def days(text: str) -> int:
    return number(1, 3_650)(text) * DAY
