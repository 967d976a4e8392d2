"""SMS.CX behind the seam of providers: a request from its token to its answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from receiver.config import Config
from receiver.errors import Refused
from receiver.event import Incoming, Rejected
from receiver.providers.contract import Item
from receiver.providers.smscx import PROVIDER as SMSCX
from receiver.receiving import Receiving, blocking
from receiver.store import Outcome
from tests.providers.callers import NOW
from tests.providers.smscx.test_webhook import ITEM

TOKEN = "token_0123456789_0123456789"


@pytest.fixture(scope="module")
def receiving() -> Receiving:
    return Receiving(Config.from_env({"SMSCX_WEBHOOK_TOKEN": TOKEN}), [SMSCX], lambda: NOW)


class Kept:
    """A store in memory. What it is told to fear, it refuses."""

    def __init__(self, fears: bytes = b"\x00") -> None:
        self.transactions: list[Sequence[Item]] = []
        self._ids: set[str] = set()
        self._fears = fears

    def __call__(self, items: Sequence[Item]) -> list[Outcome]:
        if any(isinstance(item, Incoming) and self._fears in item.body for item in items):
            raise ValueError("a defect")
        self.transactions.append(items)
        outcomes: list[Outcome] = []
        for item in items:
            if isinstance(item, Rejected):
                outcomes.append("quarantined")
            else:
                outcomes.append("duplicate" if item.id in self._ids else "accepted")
                self._ids.add(item.id)
        return outcomes


def post(receiving: Receiving, body: bytes, kept: Kept) -> dict[str, Any]:
    visit = receiving.find(f"/webhooks/smscx/{TOKEN}")
    assert visit is not None
    told = blocking(receiving.receive(visit.provider, body, visit.claimed), kept)
    answer: dict[str, Any] = json.loads(told)
    return answer


def body(*items: Any) -> bytes:
    return json.dumps({"event": "dlr_update", "data": items}).encode()


@pytest.mark.parametrize("wrong", ["", "x", TOKEN[:-1], f"{TOKEN}x", "é", "%00", "\x00"])
def test_who_does_not_know_the_token_finds_nothing(receiving: Receiving, wrong: str) -> None:
    assert receiving.find(f"/webhooks/smscx/{wrong}") is None
    assert receiving.find("/webhooks/smscx") is None
    visit = receiving.find(f"/webhooks/smscx/{TOKEN}")
    assert visit is not None
    assert visit.accepts("PUT")
    assert not visit.accepts("GET")


def test_one_transaction_a_request(receiving: Receiving) -> None:
    kept = Kept()
    items = [ITEM | {"msgId": f"m{n}"} for n in range(199)]
    told = post(receiving, body(*items[:50], None, *items[50:]), kept)
    assert told == {"status": "accepted", "accepted": 199, "duplicates": 0, "quarantined": 1}
    assert len(kept.transactions) == 1
    assert post(receiving, body(*items[:10], ITEM), kept)["duplicates"] == 10


def test_a_defect_with_one_item_costs_that_one_alone(receiving: Receiving) -> None:
    kept = Kept(fears=b"trouble")
    told = post(receiving, body(ITEM, ITEM | {"msgId": "trouble"}, ITEM | {"msgId": "m"}), kept)
    assert (told["accepted"], told["quarantined"]) == (2, 1)


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"event": "dlr_update"}'])
def test_what_is_unusable_as_a_whole(receiving: Receiving, broken: bytes) -> None:
    kept = Kept()
    with pytest.raises(Refused) as caught:
        post(receiving, broken, kept)
    assert caught.value.status == 400
    ((rejected,),) = kept.transactions
    assert isinstance(rejected, Rejected)
    assert rejected.body == broken
