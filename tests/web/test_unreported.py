"""Numbers of messages, where a provider reports no delivery."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient, FlaskCliRunner

from receiver.parts import Receiver
from receiver.providers import sipgate
from receiver.times import DAY
from tests.conftest import Clock, Provider
from tests.payloads import envelope, sms
from tests.web.v1.openapi import API

pytestmark = pytest.mark.each_engine
KEYS = {"X-API-Key": "zs_test_1"}


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "SIPGATE_TOKEN_ID": "token-ABC123",
        "SIPGATE_TOKEN": "secret",
        "V1_API_KEY": KEYS["X-API-Key"],
    }


def test_it_is_neither_pending_nor_in_the_rate(
    client: FlaskClient,
    runner: FlaskCliRunner,
    receiver: Receiver,
    provider: Provider,
    clock: Clock,
) -> None:
    for number, state in enumerate(("delivered", "failed", "sent")):
        provider.post(envelope(f"sms.{state}", sms(state, f"m{number}")))
    told = sipgate.PROVIDER
    for state in told.samples:
        body = told.sample(state, event_id=state, message_id=state, to="+491579", now=clock.time)
        receiver.ingest.submit_all(told.parse(body, received_at=clock.time, retention=90 * DAY))

    def stats(provider: str = "") -> Any:
        answer = client.get(f"/v1/sms/stats{provider}", headers=KEYS)
        API["/v1/sms/stats"]["GET"].validate_response(answer)
        found = answer.get_json()["stats"]
        return found["total_sent"], found["pending"], found["delivery_rate"]

    assert stats() == (2, 1, 50.0)
    assert stats("?provider=zimsend") == (2, 1, 50.0)
    assert stats("?provider=sipgate") == (0, 0, None)
    history = client.get("/v1/sms/history?provider=sipgate", headers=KEYS).get_json()["data"]
    assert {row["message_id"] for row in history} == {f"sipgate:{state}" for state in told.samples}
    lines = runner.invoke(args=["stats", "--by", "provider", "--format", "jsonl"]).output
    rows = {row.pop("provider"): row for row in map(json.loads, lines.splitlines())}
    assert (rows["sipgate"]["delivery_rate"], rows["sipgate"]["not_reported"]) == (None, 2)
    assert (rows["zimsend"]["delivery_rate"], rows["zimsend"]["not_reported"]) == (50.0, 0)
    table = runner.invoke(args=["stats", "--by", "provider"]).output
    assert table.splitlines()[1].split()[-2:] == ["-", "2"]
