"""A life with SMS.CX, by the same rules as one with ZimSend."""

from __future__ import annotations

from collections import Counter
from typing import Any

from receiver import ids, status
from receiver.providers.smscx import webhook
from receiver.providers.smscx.account import Account, tokens
from receiver.providers.smscx.api import SmsCx
from receiver.providers.smscx.simulator.api import create_api
from receiver.providers.smscx.simulator.running import Simulator
from receiver.providers.smscx.simulator.world import World
from receiver.times import SECOND, iso
from tests.conftest import Clock, row_of
from tests.reconciliation.life import KEY, Life, Wire

TOKEN = "token-0123456789-0123456789"


class Still(Simulator):
    """An SMS.CX that lives by the test's clock."""

    def __init__(self, world: World, clock: Clock) -> None:
        super().__init__(world, api_key=KEY, wall=clock)
        self.clock = clock

    def now(self) -> int:
        return self.clock.time


class SmsCxLife(Life):
    provider, path = "smscx", f"/webhooks/smscx/{TOKEN}"

    def simulate(self) -> tuple[Any, Wire]:
        self.environ["SMSCX_WEBHOOK_TOKEN"] = TOKEN
        self.world.callback_url = f"https://receiver{self.path}"
        simulated = Still(self.world, self.clock)
        return simulated, Wire(simulated, create_api(simulated))

    def account(self) -> Any:
        client = SmsCx(
            KEY, sleep=self.sleep, clock=lambda: self.clock.time / SECOND, now=self.clock
        )
        return Account(client, tokens(self.receiver.store, self.clock), self.clock)

    def compare(self) -> None:
        """The mirror tells the truth of every message, the code of its failure included."""
        for truth in self.world.messages.values():
            row = row_of(self.store, ids.key("smscx", truth.id))
            assert row is not None, truth
            view = status.describe(row)
            state = webhook.STATES[truth.status]
            assert view["status"] == state
            told, second = view[f"{state}_at"], truth.updated_at - truth.updated_at % SECOND
            assert iso(told) == iso(second), truth
            code = None if truth.error_code is None else str(truth.error_code)
            assert (view["error"] and view["error"]["code"]) == code

    def lost(self) -> Counter[tuple[str, str]]:
        """What the reports still tell of and no callback has brought: the last states alone."""
        arrived = {
            (item["msgId"], item["status"])
            for event in self.world.events
            if event.arrived
            for item in event.items
        }
        return Counter(
            (ids.key("smscx", message.id), f"sms.{webhook.STATES[message.status]}")
            for message in self.world.messages.values()
            if (message.id, message.status) not in arrived
        )
