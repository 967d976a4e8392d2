"""Requests that go on to ZimSend as they came. What it answers goes back likewise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from urllib.parse import quote

from receiver.config import Config
from receiver.errors import Unusable
from receiver.event import Incoming
from receiver.providers.contract import Asked, Told
from receiver.providers.exchange import Answer
from receiver.providers.requests import NotTaken
from receiver.providers.zimsend import sending
from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.api.answers import Message
from receiver.providers.zimsend.api.errors import NotUnderstood, Unavailable, refusal
from receiver.providers.zimsend.budget import Counted
from receiver.providers.zimsend.facts import facts, moments
from receiver.status import STATES
from receiver.store import Store
from receiver.strict_json import read_json
from receiver.times import DAY

log = logging.getLogger(__name__)

#: Of a caller's headers, what ZimSend is told.
_PASSED_ON = {
    "content-type": "Content-Type",
    "content-encoding": "Content-Encoding",
    "x-device-id": "X-Device-ID",
}
#: What an answer tells of messages that ZimSend has taken.
_OF_MESSAGES = {"message_id", "message_ids", "messages", "batch_id", "otp_id"}


class Sender:
    """ZimSend's API, with the settings' account. Tries once: whoever waits is told at once."""

    def __init__(self, config: Config, store: Store, now: Callable[[], int]) -> None:
        assert config.api_key is not None
        assert config.client_id is not None
        self._config = config
        self._now = now
        self.client = ZimSend(
            config.api_key.decode(),
            config.client_id.decode(),
            device_id=config.device_id,
            base_url=config.api_url,
            tries=1,
            budget=Counted(store, now),
        )
        self.calls = {
            "send": self.send,
            "send-bulk": self.send_bulk,
            "send-bulk-personalized": self.send_personalized,
            "send-otp": self.send_otp,
            "verify-otp": self.verify_otp,
            "resend": self.resend,
            "cancel": self.cancel,
        }

    def send(self, asked: Asked) -> Told:
        return self._send("/sms/send", asked, takes_webhook=True)

    def send_bulk(self, asked: Asked) -> Told:
        return self._send("/sms/send-bulk", asked, takes_webhook=True)

    def send_personalized(self, asked: Asked) -> Told:
        return self._send("/sms/send-bulk-personalized", asked)

    def send_otp(self, asked: Asked) -> Told:
        """ZimSend makes the code, so the text of its SMS is not known here."""
        return self._send("/sms/send-otp", asked, shows_text=False)

    def verify_otp(self, asked: Asked) -> Told:
        """Nothing of it is kept."""
        return Told(self._pass_on("POST", "/sms/verify-otp", asked, asked.body))

    def resend(self, asked: Asked) -> Told:
        path = f"/sms/{quote(asked.own_id, safe='')}/resend"
        return self._change("POST", path, asked, "queued")

    def cancel(self, asked: Asked) -> Told:
        return self._change("DELETE", f"/sms/{quote(asked.own_id, safe='')}", asked, "cancelled")

    def ask(self, own_id: str, within: float) -> Sequence[Incoming]:
        """What has happened lately is none that was missed: its webhook may be on its way, and is a
        repeat then; but not where the answer has no times, by which that could be told."""
        message: Message = self.client.within(timeout=within).status(own_id)
        now, config = self._now(), self._config
        told = partial(
            facts, message, now=now, retention=config.retention, text_mode=config.text_mode
        )
        # ZimSend's clock may be ahead of this one.
        found = told() or told(quiet=-DAY, source=sending.SOURCE)
        if not found and message.status in STATES and not moments(message):
            found = self._events(message.status, [sending.shown(message)])
        return found

    def _send(
        self, path: str, asked: Asked, *, takes_webhook: bool = False, shows_text: bool = True
    ) -> Told:
        """
        :param takes_webhook: whether ZimSend's documents know `webhook_url` in this call.
        :param shows_text: whether the request holds the text of the SMS.
        """
        body, url = asked.body, self._config.webhook_url
        if takes_webhook and url is not None:
            body = sending.with_webhook(body, url)
        answer = self._pass_on("POST", path, asked, body)
        if not _is_success(answer):
            return Told(answer, leaves_it=sent_nothing(answer))
        device_id = asked.headers.get("x-device-id") or self._config.device_id
        back = answer
        if asked.tells_provider:
            back = answer._replace(body=sending.with_field(answer.body, "provider", "zimsend"))
        return Told(
            back,
            leaves_it=sent_nothing(answer),
            events=lambda: self._events(
                "queued", sending.queued(body, answer.body, device_id, shows_text)
            ),
        )

    def _change(self, method: str, path: str, asked: Asked, state: str) -> Told:
        asked_at = self._now()
        answer = self._pass_on(method, path, asked, asked.body)
        if not _is_success(answer):
            return Told(answer)
        return Told(
            answer,
            events=lambda: self._events(
                state, sending.changed(asked.own_id, state, asked_at, answer.body)
            ),
        )

    def _events(self, state: str, messages: Iterable[sending.Fields]) -> list[Incoming]:
        return sending.events(
            state,
            messages,
            now=self._now(),
            retention=self._config.retention,
            text_mode=self._config.text_mode,
        )

    def _pass_on(self, method: str, path: str, asked: Asked, body: bytes) -> Answer:
        """
        :param path: below ZimSend's base URL, encoded.
        :raises NotTaken: if no answer of ZimSend's came.
        """
        headers = {
            name: value for each, name in _PASSED_ON.items() if (value := asked.headers.get(each))
        }
        try:
            answer = self.client.forward(
                method, path, body or None, headers=headers, query=asked.query
            )
        except ValueError as error:
            raise NotTaken(400, "INVALID_REQUEST", f"This cannot be passed on: {error}.") from None
        except (Unavailable, NotUnderstood) as error:
            timed_out = isinstance(error, Unavailable) and error.timed_out
            raise _no_answer(504 if timed_out else 502, error.message, error.maybe_sent) from None
        if not 200 <= answer.status <= 599 or not _is_theirs(answer):
            # A page for people, of ZimSend's proxy or another's: no program expects that here.
            told = f"HTTP {answer.status}, and no JSON"
            raise _no_answer(502, told, answer.status >= 500 or _is_success(answer))
        return answer


def sent_nothing(answer: Answer) -> bool:
    """Whether an answer of ZimSend's says that surely nothing was sent, and not because the
    recipient does not want to hear from the sender."""
    document = read_json(answer.body) if answer.body else {}
    error = refusal(answer, document, ())
    if error is None or error.maybe_sent or error.code == "BLOCKED_NUMBER":
        return False
    return not _OF_MESSAGES & document.keys()


def _no_answer(status: int, reason: str, maybe_sent: bool) -> NotTaken:
    log.warning("no answer from ZimSend (%s)", reason)
    if maybe_sent:
        advice = "The SMS may have been sent: look at ZimSend's history before you send it again."
    else:
        advice = "Nothing was sent; you can send the same again."
    told = f"No answer from ZimSend ({reason}). {advice}"
    return NotTaken(status, "NETWORK_ERROR", told, maybe_sent=maybe_sent)


def _is_theirs(answer: Answer) -> bool:
    if not answer.body:
        return _is_success(answer)
    try:
        return isinstance(read_json(answer.body), dict)
    except Unusable:
        return False


def _is_success(answer: Answer) -> bool:
    return 200 <= answer.status < 300
