"""`handlers.email`: what it sends, to whom, and what it makes of what the server answers."""

from __future__ import annotations

import base64
import email
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest

from handlers import email as handler
from receiver import ConfigError, Event, HandlerError, Registry

NUMBER = "+33612345678"
PASSWORD = "p@ss:w/rd"


@dataclass
class Mailbox:
    """A mail server with one client at a time; a test says what it answers to which verb.

    :param answers: by the first word of a line; `None` is silence.
    :param drips: a byte now and then, behind these, instead of a greeting or of TLS.
    :param drips_after: the answer to this verb instead.
    """

    answers: dict[str, str | None] = field(default_factory=dict)
    offers: str = "AUTH PLAIN"
    lines: list[str] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    drips: bytes = b""
    drips_after: str | None = None
    port: int = 0

    def verbs(self) -> list[str]:
        return [line.partition(" ")[0].upper() for line in self.lines]

    def serve(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with suppress(OSError), connection, connection.makefile("rwb") as stream:
                self.talk(stream)

    def talk(self, stream: Any) -> None:
        def say(text: str) -> None:
            stream.write(text.encode() + b"\r\n")
            stream.flush()

        def drip() -> None:
            stream.write(self.drips)
            while not self.released.wait(0.05):
                stream.write(b"2")
                stream.flush()

        if self.drips and self.drips_after is None:
            drip()
        say(self.answers.get("greeting") or "220 here")
        while line := stream.readline():
            text = line.decode("latin-1").strip()
            self.lines.append(text)
            verb = text.partition(" ")[0].upper()
            answer = self.answers.get(verb, self.usual(verb))
            if answer is None:
                self.released.wait(30)
                return
            say(answer)
            if verb == self.drips_after:
                drip()
            if verb == "DATA" and answer.startswith("354"):
                data = b""
                while (line := stream.readline()) != b".\r\n":
                    data += line
                self.mails.append(email.message_from_bytes(data, policy=default))  # type: ignore[arg-type]
                say(self.answers.get("end", None) or "250 taken")
            elif verb in ("QUIT", "STARTTLS"):
                return

    def usual(self, verb: str) -> str:
        if verb == "EHLO":
            return f"250-here\r\n250 {self.offers}"
        return {"AUTH": "235 come in", "DATA": "354 go on", "QUIT": "221 bye"}.get(verb, "250 fine")


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mailbox = Mailbox(port=server.getsockname()[1])
        thread = threading.Thread(target=mailbox.serve, args=(server,))
        thread.start()
        yield mailbox
        mailbox.released.set()
        server.shutdown(socket.SHUT_RDWR)
    thread.join(30)
    assert not thread.is_alive()


def settings(mailbox: Mailbox, **changes: str) -> dict[str, str]:
    url = f"smtp://me%40example.com:p%40ss%3Aw%2Frd@127.0.0.1:{mailbox.port}"
    return {"EMAIL_URL": url, "EMAIL_TO": "ops@example.com, boss@example.com", **changes}


def registered(environ: dict[str, str]) -> Any:
    registry = Registry()
    handler.register(registry, environ)
    (found,) = registry
    return found


@pytest.fixture
def send(mailbox: Mailbox) -> Callable[..., None]:
    function = registered(settings(mailbox)).function

    def one(event_type: str = "sms.failed", **fields: Any) -> None:
        fields = {"to": NUMBER, "error_code": "NO_CREDIT", **fields}
        function(Event.sample(event_type, **fields))

    return one


def test_it_is_off_until_a_server_is_named() -> None:
    registry = Registry()
    handler.register(registry, {})
    handler.register(registry, {"EMAIL_URL": "", "EMAIL_TO": "ops@example.com"})
    assert list(registry) == []


def test_which_events_it_sends(mailbox: Mailbox) -> None:
    assert registered(settings(mailbox)).patterns == ("sms.failed",)
    chosen = registered(settings(mailbox, EMAIL_EVENTS="sms.failed, device.*"))
    assert chosen.wants("device.connected")
    assert not chosen.wants("sms.sent")
    assert chosen.name == "email"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMAIL_URL", "mail.example.com"),
        ("EMAIL_URL", "http://mail.example.com"),
        ("EMAIL_URL", "smtp://:secret@mail.example.com"),
        ("EMAIL_URL", "smtp://u:secret@mail.example.com:port"),
        ("EMAIL_URL", "smtp://u:secret@mail.example.com?tls=no"),
        ("EMAIL_TO", ""),
        ("EMAIL_TO", "ops"),
        ("EMAIL_TO", "ops@example.com,"),
        ("EMAIL_TO", "ops@example.com\r\nBcc: other@example.com"),
        ("EMAIL_TO", "Ops <ops@example.com>"),
        ("EMAIL_EVENTS", "failed"),
        ("EMAIL_EVENTS", "sms.failed,,"),
    ],
)
def test_a_wrong_setting_stops_the_start(mailbox: Mailbox, name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        handler.register(Registry(), settings(mailbox, **{name: value}))
    assert caught.value.name == name
    assert "secret" not in str(caught.value)


def test_the_mail(mailbox: Mailbox, send: Any) -> None:
    send(id="evt_1", message_id="msg_1", device_id="dev_1", data={"message": "code 4829"})
    (mail,) = mailbox.mails
    assert mail["Subject"] == "SMS failed: NO_CREDIT"
    assert mail["From"].addresses[0].addr_spec == "me@example.com"
    assert [a.addr_spec for a in mail["To"].addresses] == ["ops@example.com", "boss@example.com"]
    text = mail.get_content()
    assert "To: +33*******78" in text
    assert "Message: msg_1" in text
    assert "Phone: dev_1" in text
    for hidden in (NUMBER, "612345", "4829"):
        assert hidden not in mail.as_string()
    login = next(line for line in mailbox.lines if line.startswith("AUTH"))
    assert base64.b64decode(login.split()[-1]) == f"\0me@example.com\0{PASSWORD}".encode()


def test_the_same_event_has_the_same_message_id(mailbox: Mailbox, send: Any) -> None:
    for event_id in ("evt_1", "evt_1", "evt_2", "é\n"):
        send(id=event_id)
    first, again, other, odd = [mail["Message-ID"] for mail in mailbox.mails]
    assert first == again
    assert len({first, other, odd}) == 3


@pytest.mark.parametrize("where", ["error_code", "to", "message_id", "device_id", "id", "type"])
@pytest.mark.parametrize(
    "value",
    [
        "x\r\nBcc: other@example.com",
        "x\n.\nMAIL FROM:<a@b>",
        "\x00\x1b[2J\u2028x",
        "=?utf-8?q?=0D=0ABcc:_x?=",
        "é" * 900,
    ],
)
def test_no_value_becomes_a_header_or_a_command(mailbox: Mailbox, where: str, value: str) -> None:
    event = Event.sample(
        value if where == "type" else "sms.failed", **({} if where == "type" else {where: value})
    )
    registered(settings(mailbox)).function(event)
    (mail,) = mailbox.mails
    assert set(mail.keys()) == {
        "Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "Content-Type",
        "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert mailbox.verbs().count("MAIL") == 1
    assert mailbox.verbs().count("RCPT") == 2


@pytest.mark.parametrize(
    ("verb", "answer", "permanent"),
    [
        ("greeting", "421 later", False),
        ("greeting", "554 not you", False),
        ("AUTH", "535 wrong", False),
        ("AUTH", "454 later", False),
        ("MAIL", "451 later", False),
        ("MAIL", "550 never", True),
        ("RCPT", "450 greylisted", False),
        ("RCPT", "550 unknown", True),
        ("DATA", "451 later", False),
        ("DATA", "554 no", True),
        ("end", "452 full", False),
        ("end", "552 too large", True),
    ],
)
def test_what_a_refusal_means(
    mailbox: Mailbox, send: Any, verb: str, answer: str, permanent: bool
) -> None:
    mailbox.answers[verb] = answer
    with pytest.raises(HandlerError) as caught:
        send()
    assert caught.value.permanent == permanent
    assert PASSWORD not in str(caught.value)
    assert NUMBER not in str(caught.value)


def test_what_goes_wrong_after_the_mail_was_taken_does_not_send_it_again(
    mailbox: Mailbox, send: Any
) -> None:
    mailbox.answers["QUIT"] = "500 what"
    send()
    assert len(mailbox.mails) == 1


def test_no_password_and_no_mail_goes_to_another_machine_without_tls(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda _, *rest: connect(("127.0.0.1", mailbox.port), *rest)
    )
    url = "smtp://u:p@mail.example.com"
    function = registered(settings(mailbox, EMAIL_URL=url)).function
    for offers in ("AUTH PLAIN", "STARTTLS"):
        mailbox.offers = offers
        mailbox.answers["STARTTLS"] = "454 not today"
        with pytest.raises(HandlerError) as caught:
            function(Event.sample("sms.failed"))
        assert not caught.value.permanent
    assert not {"AUTH", "MAIL", "DATA"} & set(mailbox.verbs())
    mailbox.answers["STARTTLS"] = "220 go on"  # and it does not speak TLS
    with pytest.raises(HandlerError):
        function(Event.sample("sms.failed"))
    assert not {"AUTH", "MAIL", "DATA"} & set(mailbox.verbs())


#: The head of a TLS record, whose 16,000 bytes then come one by one.
TLS_RECORD = b"\x16\x03\x03\x3e\x80\x02"


@pytest.mark.parametrize(
    ("scheme", "drips", "after"),
    [
        ("smtp", b"2", None),
        ("smtps", b"2", None),
        ("smtps", TLS_RECORD, None),
        ("smtp", TLS_RECORD, "STARTTLS"),
    ],
)
def test_a_server_that_hangs_or_drips_is_given_up_in_time(
    mailbox: Mailbox,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    drips: bytes,
    after: str | None,
) -> None:
    monkeypatch.setattr(handler, "_WITHIN", 0.2)
    mailbox.drips, mailbox.drips_after, mailbox.offers = drips, after, "STARTTLS"
    url = f"{scheme}://127.0.0.1:{mailbox.port}"
    began = time.monotonic()
    with pytest.raises(HandlerError) as caught:
        registered(settings(mailbox, EMAIL_URL=url)).function(Event.sample("sms.failed"))
    assert not caught.value.permanent
    assert time.monotonic() - began < 9


def test_nobody_is_there(mailbox: Mailbox) -> None:
    function = registered(settings(mailbox, EMAIL_URL="smtp://127.0.0.1:9")).function
    with pytest.raises(HandlerError, match="ConnectionRefusedError"):
        function(Event.sample("sms.failed"))
