"""Requests to send in ZimSend's shape, carried out by SMS.CX."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from receiver.config import Config
from receiver.event import Incoming
from receiver.providers.contract import Asked, Told
from receiver.providers.errors import ProviderError
from receiver.providers.requests import LONGEST, NotTaken, not_tried, of_all, why_no_other
from receiver.providers.smscx import reports, sending, sent, webhook
from receiver.providers.smscx.api import SmsCx
from receiver.providers.smscx.api.answers import Sent
from receiver.providers.smscx.sending import Wanted
from receiver.providers.smscx.sent import End
from receiver.store import Store
from receiver.strict_json import text_of
from receiver.times import DAY

T = TypeVar("T")


class Sender:
    """SMS.CX's API, with the settings' account. Tries once, and waits for no limit to pass: who
    waits is told at once.

    :param clock: seconds that only grow.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        now: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert config.smscx_api_key is not None
        self.client = SmsCx(
            config.smscx_api_key.decode(),
            sender=config.smscx_sender,
            base_url=config.smscx_api_url,
            tries=1,
            patience=0,
            now=now,
        )
        self._config = config
        self._now = now
        self._clock = clock
        self._webhook_url = None
        if config.public_url is not None:
            self._webhook_url = config.public_url + webhook.address(config)
        self.calls = {
            "send": self.send,
            "send-bulk": self.send_many,
            "send-bulk-personalized": self.send_many,
            "send-otp": self.send_otp,
            "verify-otp": self.verify_otp,
            "cancel": self.cancel,
        }

    def send(self, asked: Asked) -> Told:
        found = self._send([sending.one(asked.fields)])
        (end, *_), now = found, self._now()
        answer = end.problem or sent.answer_to_one(end, now)
        return Told(answer, _left(found), partial(self._events, found, now))

    def send_many(self, asked: Asked) -> Told:
        """One request for all that have one text, else several, one after another."""
        wanted = sending.many(asked.fields)
        began, found, stop = self._clock(), list[End](), None
        for batch in sending.batches(sms for sms in wanted if isinstance(sms, Wanted)):
            if stop is None and self._clock() - began > LONGEST:
                stop = not_tried("it took too long")
            if stop is not None:
                found += [End(sms, None, stop) for sms in batch]
                continue
            ends = self._send(batch)
            found += ends
            if all(end.message is None for end in ends):
                stop = why_no_other(ends[0].problem, "SMS.CX")
        now = self._now()
        answer = of_all(
            end.problem if end.message is None else None for end in found
        ) or sent.answer_to_many(wanted, found, now)
        refused = [sms for sms in wanted if isinstance(sms, NotTaken)]
        left = _left(found) and all(problem.leaves_it for problem in refused)
        return Told(answer, left, partial(self._events, found, now))

    def send_otp(self, asked: Asked) -> Told:
        told = sending.otp_arguments(asked.fields, track_id=str(uuid.uuid4()))
        otp = _called(lambda: self.client.new_otp(**told, callback_url=self._webhook_url))
        return Told(sent.answer_to_otp(otp))

    def verify_otp(self, asked: Asked) -> Told:
        code = text_of(asked.fields.get("code"))
        if not code:
            raise NotTaken(400, "INVALID_REQUEST", "code must be a text")
        valid = _called(lambda: self.client.verify_otp(asked.own_id, code))
        try:
            otp = None if valid else self.client.otp(asked.own_id)
        except ProviderError:  # how many checks are left is not worth an error
            otp = None
        return Told(sent.answer_to_check(valid, otp))

    def cancel(self, asked: Asked) -> Told:
        own_id, asked_at = asked.own_id, self._now()
        told = _called(lambda: self.client.delete_scheduled(own_id))
        return Told(
            sent.answer_to_cancel(own_id),
            events=lambda: sent.taken_back(
                own_id,
                told,
                asked_at,
                now=self._now(),
                retention=self._config.retention,
                text_mode=self._config.text_mode,
            ),
        )

    def ask(self, own_id: str, within: float) -> Sequence[Incoming]:
        """What has just changed is none that was missed: its callback may be on its way."""
        message = self.client.within(timeout=within).report(own_id)
        if message.msg_id != own_id:
            return []
        config = self._config
        told = partial(
            reports.facts,
            message,
            now=self._now(),
            retention=config.retention,
            text_mode=config.text_mode,
        )
        return told() or told(quiet=-DAY, source=sent.SOURCE)

    def _send(self, batch: Sequence[Wanted]) -> list[End]:
        track_data = str(uuid.uuid4())
        told = sending.arguments(
            batch,
            webhook_url=self._webhook_url,
            track_data=track_data,
            idempotency_id=str(uuid.uuid4()),
        )
        answer: Sent | ProviderError
        try:
            answer = self.client.send(**told)
        except ProviderError as error:
            answer = error
        except (ValueError, TypeError) as error:  # no request holds it
            problem = NotTaken(400, "INVALID_REQUEST", f"This cannot be sent: {error}")
            return [End(sms, None, problem) for sms in batch]
        return sent.ends(batch, answer, track_data)

    def _events(self, found: Sequence[End], now: int) -> list[Incoming]:
        config = self._config
        return sent.events(found, now=now, retention=config.retention, text_mode=config.text_mode)


def _called(call: Callable[[], T]) -> T:
    """
    :raises NotTaken: if it is not done.
    """
    try:
        return call()
    except ProviderError as error:
        raise sent.not_taken(error) from None
    except (ValueError, TypeError) as error:  # no request holds it
        raise NotTaken(400, "INVALID_REQUEST", f"This cannot be asked: {error}") from None


def _left(found: Sequence[End]) -> bool:
    return all(end.problem is not None and end.problem.leaves_it for end in found)
