"""Sends a mail for each event of the types in `EMAIL_EVENTS`, by default for each SMS that failed.

`EMAIL_URL` switches it on: `smtps://` speaks TLS from the first byte (port 465), `smtp://` begins
it with STARTTLS (port 587), and sends nothing where the server cannot. Only to this machine itself
mail may go without.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any
from urllib.parse import unquote, urlsplit

from receiver import ConfigError, Event, HandlerError, Registry
from receiver.handlers.log import mask

log = logging.getLogger("handlers.email")  # the name that filters of log lines know

#: Its own settings, for docs/reference/settings.md.
SETTINGS = {
    "EMAIL_URL": "the mail server of `handlers.email`; unset: it does nothing",
    "EMAIL_TO": "who gets its mails",
    "EMAIL_EVENTS": "the types of events that it sends",
}
DEFAULT_EVENTS = "sms.failed"

#: Seconds for each piece of the conversation, and for all of it: less than the handler's time-out.
_STEP, _WITHIN = 8.0, 20.0
_CALLS_AT_ONCE = 2
#: Characters of a value in a mail.
_LONGEST = 200
_TITLES = {
    "sms.failed": "SMS failed",
    "sms.delivered": "SMS delivered",
    "sms.sent": "SMS sent",
    "sms.queued": "SMS queued",
    "sms.processing": "SMS processing",
    "sms.cancelled": "SMS cancelled",
    "sms.expired": "SMS expired",
    "device.connected": "Phone connected",
    "device.disconnected": "Phone disconnected",
}
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+")
_PATTERN = re.compile(r"\*|[A-Za-z0-9_-]+\.(?:\*|[A-Za-z0-9_.-]+)")
_HELP = "must be like smtp://user:password@mail.example.com:587, or smtps:// for TLS from the start"


def register(registry: Registry, environ: Mapping[str, str] = os.environ) -> None:
    url = environ.get("EMAIL_URL")
    if not url:
        return
    server = _server(url)
    addressed = environ.get("EMAIL_TO")
    if not addressed:
        raise ConfigError("EMAIL_TO", "not set, but EMAIL_URL is; who is to get the mails?")
    recipients = tuple(_address(part) for part in addressed.split(","))
    patterns = [part.strip() for part in (environ.get("EMAIL_EVENTS") or DEFAULT_EVENTS).split(",")]
    if not all(_PATTERN.fullmatch(pattern) for pattern in patterns):
        raise ConfigError("EMAIL_EVENTS", "must be types like sms.failed or sms.*, with commas")
    handler = Email(server, recipients)
    registry.on(*patterns, name="email", timeout=30, concurrency=_CALLS_AT_ONCE)(handler)


@dataclass(frozen=True, slots=True)
class Server:
    """:param tls: from the first byte; else by STARTTLS, but for a server on this machine that has
    none."""

    host: str
    port: int
    tls: bool
    user: str | None = field(repr=False)
    password: str = field(repr=False)

    @property
    def is_here(self) -> bool:
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class _Bounded(smtplib.SMTP):
    """A conversation that ends in time, also with a server that says a byte now and then.

    :param tls: what speaks TLS from the first byte, if that is to be.
    """

    def __init__(self, *arguments: Any, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        self._tls = tls
        self._line: socket.socket | None = None
        self._is_late = False
        self._timer = threading.Timer(_WITHIN, self._give_up)
        self._timer.daemon = True
        self._timer.start()
        try:
            super().__init__(*arguments, **options)
        except BaseException:
            self.close()
            raise

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """smtplib's own, and that of its `SMTP_SSL`."""
        plain = socket.create_connection((host, port), timeout)
        # A second handle: TLS takes the first one away while it shakes hands.
        self._line = plain.dup()
        if self._is_late:
            plain.close()
            raise TimeoutError("it took too long to connect")
        return plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname=host)

    def _give_up(self) -> None:
        self._is_late = True
        if self._line is not None:
            with suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._timer.cancel()
        super().close()
        if self._line is not None:
            self._line.close()


class Email:
    """The handler: a conversation with the server for each event."""

    def __init__(
        self, server: Server, recipients: tuple[Address, ...], trust: ssl.SSLContext | None = None
    ) -> None:
        self._server = server
        self._recipients = recipients
        user = server.user or ""
        #: Many servers let a user send in nobody else's name.
        self._sender = user if _ADDRESS.fullmatch(user) else recipients[0].addr_spec
        self._trust = trust or ssl.create_default_context()

    def __call__(self, event: Event) -> None:
        """Send it. The same event makes the same Message-ID in each attempt.

        :raises HandlerError: permanent where the server refuses this mail, its sender or all of its
            recipients for good (5xx); else to be tried again, also where it does not let us in.
        """
        mail = self.mail(event)
        try:
            with closing(self._connect()) as smtp:
                self._enter(smtp)
                refused = smtp.send_message(mail)
                with suppress(smtplib.SMTPException, OSError):  # the mail is on its way
                    smtp.quit()
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise HandlerError(
                f"the mail server refused all recipients ({codes[0]}); check EMAIL_TO",
                permanent=all(code >= 500 for code in codes),
            ) from None
        except smtplib.SMTPResponseException as error:
            refused_login = isinstance(error, smtplib.SMTPAuthenticationError)
            final = error.smtp_code >= 500 and isinstance(
                error, smtplib.SMTPSenderRefused | smtplib.SMTPDataError
            )
            raise HandlerError(
                f"the mail server answered {error.smtp_code}"
                + ("; check user and password in EMAIL_URL" if refused_login else ""),
                permanent=final,
            ) from None
        except (smtplib.SMTPException, OSError) as error:  # ssl's are OSErrors
            raise HandlerError(
                f"no mail could be given to {self._server.host}: {type(error).__name__}"
            ) from None
        if refused:
            log.warning(
                "the mail server refused %d of %d recipients in EMAIL_TO, the others got it",
                len(refused),
                len(self._recipients),
            )

    def mail(self, event: Event) -> EmailMessage:
        """What is sent. Of the SMS neither the text nor the whole number."""
        title = _TITLES.get(event.type, f"Event {_plain(event.type)}")
        facts = {
            "To": mask(event.to),
            # In words it may hold a number, or what the SMS says.
            "Why": event.error_code,
            "Message": event.message_id,
            "Phone": event.device_id,
            "When": event.occurred_at.isoformat(timespec="seconds"),
            "Event": event.id,
            "Provider": event.provider,
        }
        about = event.error_code or mask(event.to)
        mail = EmailMessage(SMTP)
        mail["Subject"] = f"{title}: {_plain(about)}" if about else title
        mail["From"] = Address("zimsend-receiver", addr_spec=self._sender)
        mail["To"] = self._recipients
        mail["Date"] = event.received_at
        digest = hashlib.sha256(f"{event.provider}\0{event.id}".encode("utf-8", "replace"))
        mail["Message-ID"] = f"<{digest.hexdigest()[:40]}@zimsend-receiver.invalid>"
        mail["Auto-Submitted"] = "auto-generated"
        lines = [f"{name}: {_plain(str(value))}" for name, value in facts.items() if value]
        more = f"The command `events show {_plain(event.id)}` shows the rest."
        mail.set_content("\n".join([f"{title}.", "", *lines, "", more, ""]))
        return mail

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        # A name of its own: to look ours up may take long.
        options: Any = {"timeout": _STEP, "local_hostname": "[127.0.0.1]"}
        tls = self._trust if server.tls else None
        return _Bounded(server.host, server.port, tls=tls, **options)

    def _enter(self, smtp: smtplib.SMTP) -> None:
        """Fails closed: no password and no mail goes where others may read it."""
        smtp.ehlo_or_helo_if_needed()
        server = self._server
        if not server.tls:
            if smtp.has_extn("starttls"):
                smtp.starttls(context=self._trust)
            elif not server.is_here:
                raise HandlerError(
                    f"{server.host} does not offer STARTTLS, so nothing was sent; use smtps:// if "
                    "it speaks TLS from the start"
                )
        if server.user is not None:
            smtp.login(server.user, server.password)


def _plain(text: str) -> str:
    """On one line: no value begins another line, or a header. Python's mails decode what looks like
    an encoded word (RFC 2047) in what they are given, and then break the line that it holds."""
    shown = "".join(c if c.isprintable() else " " for c in text[:_LONGEST]).replace("=?", "= ?")
    return shown.encode("utf-8", "replace").decode()


def _server(url: str) -> Server:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("EMAIL_URL", _HELP) from None
    if parts.scheme not in ("smtp", "smtps") or not host or parts.path.strip("/") or parts.query:
        raise ConfigError("EMAIL_URL", _HELP)
    tls = parts.scheme == "smtps"
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password or "")
    if user is None and password:
        raise ConfigError("EMAIL_URL", _HELP)
    return Server(host, port or (465 if tls else 587), tls, user, password)


def _address(text: str) -> Address:
    text = text.strip()
    try:
        address = Address(addr_spec=text) if _ADDRESS.fullmatch(text) else None
    except Exception:  # the parser's errors are of many kinds
        address = None
    if address is None:
        raise ConfigError("EMAIL_TO", "must be mail addresses, separated by commas")
    return address
