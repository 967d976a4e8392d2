"""What the dashboard signs: sessions, the one-time link, the age of a form, a notice. Pure.

All of it is worth nothing under another `SECRET_KEY`, and after a change of `ADMIN_PASSWORD`. Where
the program around says who is let in there may be neither: then it is a provider's secret that
signs, since all processes have the same, and no password is the right one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from itsdangerous import BadData, TimestampSigner
from itsdangerous.encoding import base64_decode, base64_encode

from receiver.characters import normalised
from receiver.config import Config
from receiver.times import SECOND

#: Seconds for which each is good.
SESSION, LINK, FORM, NOTICE = 12 * 3_600, 600, 3_600, 60


class Tokens:
    """
    :param now: the clock, in microseconds.
    """

    def __init__(self, config: Config, now: Callable[[], int]) -> None:
        self._has_password = config.admin_password is not None
        self._password = _digest(config.admin_password or "")
        # itsdangerous signs with the last of its keys; settings name the newest one first.
        self._keys = list(reversed(keys_of(config)))
        self._now = now

    def opens(self, password: str) -> bool:
        """Whether it is the password; in constant time."""
        return hmac.compare_digest(_digest(password), self._password) and self._has_password

    def session(self) -> str:
        return self._sign("session", secrets.token_urlsafe(12))

    def is_session(self, token: str) -> bool:
        return self._read("session", token, SESSION) is not None

    def link(self) -> str:
        """A token that signs in once; whoever takes it writes down that it is spent."""
        return self._sign("link", secrets.token_urlsafe(12))

    def read_link(self, token: str) -> str | None:
        """The name of a link, if it is one and not too old."""
        return self._read("link", token, LINK)

    def form(self) -> str:
        """Says when the form of signing in was given out."""
        return self._sign("form", str(self._now()))

    def form_age(self, token: str) -> float | None:
        """Seconds since a form was given out; `None` if it never was, or too long ago."""
        given_out = self._read("form", token, FORM)
        return None if given_out is None else (self._now() - int(given_out)) / SECOND

    def notice(self, key: str, values: Mapping[str, Any]) -> str:
        """What was done, for the page that is shown next."""
        return self._sign("notice", json.dumps([key, values]))

    def read_notice(self, token: str) -> tuple[str, dict[str, Any]] | None:
        text = self._read("notice", token, NOTICE)
        if text is None:
            return None
        key, values = json.loads(text)
        return key, values

    def _sign(self, purpose: str, text: str) -> str:
        return self._signer(purpose).sign(base64_encode(text)).decode()

    def _read(self, purpose: str, token: str, most: int) -> str | None:
        try:
            signed: bytes = self._signer(purpose).unsign(token, max_age=most)
            signature = token.rpartition(".")[2]
            if base64_encode(base64_decode(signature)).decode() != signature:
                return None  # other letters that are read as the same bytes
            return base64_decode(signed).decode()
        except (BadData, UnicodeError):
            return None

    def _signer(self, purpose: str) -> TimestampSigner:
        signer = _Signer(
            self._keys,
            salt=f"zimsend-receiver {purpose} ".encode() + self._password,
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )
        signer.now = self._now
        return signer


def keys_of(config: Config) -> tuple[bytes, ...]:
    """What signs, the newest first; there is always one."""
    known = (config.secret_keys, config.webhook_secrets, config.smscx_tokens)
    return next(filter(None, known), (config.sipgate_token or b"",))


class _Signer(TimestampSigner):
    """By the service's own clock."""

    now: Callable[[], int]

    def get_timestamp(self) -> int:
        return self.now() // SECOND


def _digest(password: str) -> bytes:
    """Of one length for all, and the same however a keyboard puts accents together."""
    text = normalised("NFC", password)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
