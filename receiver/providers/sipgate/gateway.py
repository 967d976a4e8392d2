"""Requests to send in ZimSend's shape, carried out by sipgate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from receiver.config import Config
from receiver.event import Incoming
from receiver.providers.clock import clock_of
from receiver.providers.contract import Asked, Told
from receiver.providers.requests import NotTaken, of_all
from receiver.providers.sipgate import sending
from receiver.providers.sipgate.api import Sipgate
from receiver.providers.sipgate.intents import Book, Intent
from receiver.providers.sipgate.sending import End, Wanted
from receiver.store import Store


class Sender:
    """sipgate's API, with the settings' account."""

    def __init__(self, config: Config, store: Store, now: Callable[[], int]) -> None:
        assert config.sipgate_token_id is not None
        assert config.sipgate_token is not None
        self.client = Sipgate(
            config.sipgate_token_id.decode(),
            config.sipgate_token.decode(),
            sms_id=config.sipgate_sms_id,
            base_url=config.sipgate_api_url,
        )
        self._config = config
        self._book = Book(store)
        self._now = now
        #: What is asked for is found by its time, so that is sipgate's.
        self._clock = clock_of(config.sipgate_api_url, now)
        self.calls = {
            "send": self.send,
            "send-bulk": self.send_many,
            "send-bulk-personalized": self.send_many,
        }

    def send(self, asked: Asked) -> Told:
        now = self._clock()
        (end,), kept = self._send([sending.one(asked.fields, now)], now)
        answer = end.problem or sending.answer_to_one(end, now)
        return Told(answer, _left([end]), lambda: self._events(kept, now))

    def send_many(self, asked: Asked) -> Told:
        now = self._clock()
        wanted = sending.many(asked.fields, now)
        refused = [sms for sms in wanted if isinstance(sms, NotTaken)]
        ends, kept = self._send([sms for sms in wanted if isinstance(sms, Wanted)], now)
        nothing = of_all(None if end.may_be_sent else end.problem for end in ends)
        return Told(
            nothing or sending.answer_to_many(wanted, ends, now),
            _left(ends) and all(problem.leaves_it for problem in refused),
            lambda: self._events(kept, now),
        )

    def ask(self, own_id: str, within: float) -> Sequence[Incoming]:
        """Nobody at sipgate knows our ids; its history is read whole."""
        return []

    def _send(self, wanted: Sequence[Wanted], now: int) -> tuple[list[End], dict[str, Intent]]:
        return sending.send(
            self.client, self._book, wanted, now=now, text_mode=self._config.text_mode
        )

    def _events(self, kept: Mapping[str, Intent], now: int) -> list[Incoming]:
        found = sending.events(
            kept, now=now, retention=self._config.retention, text_mode=self._config.text_mode
        )
        # What was asked for by another clock is received, and due to handlers, by ours.
        return [event._replace(received_at=self._now()) for event in found]


def _left(ends: Sequence[End]) -> bool:
    return all(end.problem is not None and end.problem.leaves_it for end in ends)
