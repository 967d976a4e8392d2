"""Messages and webhooks over a network."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from dataclasses import replace

import pytest

from receiver import times
from receiver.providers.zimsend.simulator.world import (
    REPORTS,
    Weather,
    Webhook,
    World,
)
from tests.providers.zimsend.simulator.network import Hook, rested, running
from tests.providers.zimsend.simulator.worlds import NUMBER, SECRET, hooked
from tests.server import eventually, free_port


def test_a_message_and_its_webhooks_over_the_network(hook: Hook) -> None:
    world = World(began=times.now(), seed=3)
    with running(world, speed=8) as client:  # slow enough that one report comes after the other
        asked = {"url": hook.url, "secret": "my own secret"}
        assert client.post("/v1/webhooks/configure", json=asked).status_code == 200
        sent = client.post("/v1/sms/send", json={"to": NUMBER, "message": "Bonjour 👋"})
        assert sent.status_code == 200
        told = rested(client)
        assert [event["state"] for event in told["events"]] == ["received"] * 2
        bodies = [json.loads(body) for _, body in hook.got]
        assert [body["event"] for body in bodies] == ["sms.sent", "sms.delivered"]
        assert [b["event_id"] for b in bodies] == [event["event_id"] for event in told["events"]]
        for headers, body in hook.got:
            expected = hmac.new(b"my own secret", body, hashlib.sha256).hexdigest()
            assert headers["X-Webhook-Signature"] == expected
            assert headers["User-Agent"] == "ZimSend-Webhook/1.0"
            assert headers["Content-Type"] == "application/json"
        tested = client.post("/v1/webhooks/wh_1/test").json()
        assert tested["response_status"] == 200
        lines = client.get("/v1/webhooks/logs").json()["logs"]
        assert [line["event"] for line in lines] == ["sms.sent", "sms.delivered", "sms.sent"]
        assert {line["response_status"] for line in lines} == {200}


def test_a_receiver_may_ask_before_it_answers(hook: Hook) -> None:
    world = World(began=times.now())
    with running(world, speed=1) as client:
        client.post("/v1/webhooks/configure", json={"url": hook.url})
        hook.answer = lambda: client.get("/v1/sms/stats").status_code
        assert client.post("/v1/webhooks/wh_1/test").json()["response_status"] == 200


@pytest.mark.parametrize("wrong", ["silence", "redirect", "nobody"])
def test_what_is_no_success_over_the_network(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setattr(
        "receiver.providers.simulating.running.ANSWER_WITHIN",
        0.2 if wrong == "silence" else 15,
    )
    released = threading.Event()
    hook.answer = (lambda: 302) if wrong == "redirect" else lambda: released.wait(30) and 200
    url = f"http://127.0.0.1:{free_port()}/" if wrong == "nobody" else hook.url
    world = World(began=times.now(), weather=Weather(failed=1))
    world.webhooks["wh_1"] = Webhook("wh_1", url, REPORTS, SECRET)
    try:
        with running(world, speed=500) as client:
            client.post("/v1/sms/send", json={"to": NUMBER, "message": "Bonjour"})
            [event] = rested(client)["events"]
            lines = client.get("/v1/webhooks/logs").json()["logs"]
    finally:
        released.set()
    outcome = {
        "silence": "no answer in time",
        "redirect": "302",
        "nobody": "no connection (ConnectError)",
    }[wrong]
    assert [attempt["outcome"] for attempt in event["tries"]] == [outcome] * 3
    assert (event["state"], event["arrived"]) == ("dropped", False)
    assert [line["attempt"] for line in lines] == [3, 2, 1]
    assert {line["response_status"] for line in lines} == {302 if wrong == "redirect" else None}
    assert all(line["response_time_ms"] >= 200 for line in lines) == (wrong == "silence")


def test_it_can_be_stopped_at_any_time(hook: Hook) -> None:
    world = hooked(devices=50)
    world.webhooks["wh_1"] = replace(world.webhooks["wh_1"], url=hook.url)
    world.campaign(500, rate=100)
    with running(world, speed=500):
        eventually(lambda: len(hook.got) > 20)
    names = ("simulator", "poster")
    assert not [t.name for t in threading.enumerate() if t.name.startswith(names)]
