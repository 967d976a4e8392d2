"""The client beside a simulated sipgate, over HTTP; and how strict that is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from receiver import times
from receiver.providers.errors import (
    CredentialsRefused,
    NotFound,
    ProviderError,
    RequestRefused,
    TryLater,
    Unavailable,
)
from receiver.providers.simulating.world import Weather
from receiver.providers.sipgate import history
from receiver.providers.sipgate.api import Sipgate
from receiver.providers.sipgate.simulator.api import create_api, serve
from receiver.providers.sipgate.simulator.running import Simulator
from receiver.providers.sipgate.simulator.world import Habits, World
from receiver.times import HOUR, SECOND
from tests.providers.sipgate.api.calls import NUMBER, TOKEN, TOKEN_ID
from tests.server import eventually, free_port


class Here:
    def __init__(self) -> None:
        self.port = free_port()
        self.world = World(began=times.now(), seed=7, habits=Habits(national=1.0, twice=0.5))
        self.simulator = Simulator(self.world, speed=50, token_id=TOKEN_ID, token=TOKEN)
        self.close = serve(self.simulator, "127.0.0.1", self.port)
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = Sipgate(TOKEN_ID, TOKEN, base_url=self.url, sleep=lambda _: None)

    def truth(self) -> Any:
        return httpx.get(f"{self.url}/truth", trust_env=False).json()


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    here = Here()
    yield here
    here.client.close()
    here.close()


def test_from_a_request_to_its_entry(here: Here) -> None:
    here.client.send(NUMBER, "Guten Tag")
    (row,) = eventually(lambda: list(here.client.entries(connection_ids=("s0",))))
    entry = history.read(row)
    assert entry is not None
    assert row["target"].startswith("0157")
    assert (entry.number, entry.text) == (NUMBER[1:], history.digest("Guten Tag"))
    assert here.client.entry(entry.id) == row
    (message,) = (m for m in here.truth()["messages"] if m["id"] == entry.id)
    assert (message["to"], message["source"], message["answer_lost"]) == (NUMBER, "api", False)
    assert list(here.client.entries(connection_ids=("s1",))) == []
    later = times.to_datetime(entry.created + HOUR)
    assert list(here.client.entries(since=later)) == []


def test_a_lost_answer_is_one_that_does_not_come(here: Here) -> None:
    weather, here.world.weather = here.world.weather, Weather(lost_answers=1.0)
    sent = len(here.world.sent)
    with pytest.raises(Unavailable) as caught:
        here.client.send(NUMBER, "lost")
    here.world.weather = weather
    assert (caught.value.maybe_sent, caught.value.status) == (True, None)
    assert len(here.world.sent) == sent + 1


def test_a_lost_request_is_none(here: Here) -> None:
    weather, here.world.weather = here.world.weather, Weather(drop=1.0)
    sent = len(here.world.sent)
    with pytest.raises(Unavailable):
        here.client.send(NUMBER, "dropped")
    here.world.weather = weather
    assert len(here.world.sent) == sent


def test_no_credit_is_told_as_such(here: Here) -> None:
    here.world.balance = 0
    with pytest.raises(TryLater) as caught:
        here.client.send(NUMBER, "x")
    here.world.balance = None
    assert caught.value.status == 402


def test_who_and_what_there_is(here: Here) -> None:
    user = here.client.userinfo()
    assert [one.id for one in here.client.extensions(user.id)] == ["s0", "s1"]
    (caller_id,) = here.client.caller_ids(user.id, "s0")
    assert caller_id.is_default
    assert here.client.account().history_life_time == "THIRTY_DAYS"


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda c: c.send("01579 9000002", "x"), RequestRefused),
        (lambda c: c.send(NUMBER, ""), RequestRefused),
        (lambda c: c.send(NUMBER, "x", sms_id="s7"), CredentialsRefused),
        (lambda c: c.send(NUMBER, "x", send_at=1), RequestRefused),
        (lambda c: c.send(NUMBER, "x", send_at=(times.now() // SECOND) * 1000), RequestRefused),
        (lambda c: c.history(limit=1001), RequestRefused),
        (lambda c: c.history(types=("SMS,CALL",)), RequestRefused),
        (lambda c: c.history(connection_ids=("s0,s1",)), RequestRefused),
        (lambda c: c.entry("none"), NotFound),
    ],
)
def test_it_is_strict(here: Here, call: Any, kind: type[ProviderError]) -> None:
    with pytest.raises(kind):
        call(here.client)


# --- without a port


def simulated(limit: int | None = None, **how: Any) -> tuple[World, Any]:
    world = World(began=times.now(), seed=1, **how)
    simulator = Simulator(world, token_id=TOKEN_ID, token=TOKEN, rate_limit=limit)
    return world, create_api(simulator).test_client()


SEND = {"smsId": "s0", "recipient": NUMBER, "message": "x"}


def test_statuses() -> None:
    world, api = simulated(balance=1)

    def post(**sent: Any) -> int:
        return int(api.post("/sessions/sms", **sent).status_code)

    who = (TOKEN_ID, TOKEN)
    assert post(auth=who, json={k: v for k, v in SEND.items() if k != "smsId"}) == 500
    assert post(auth=who, data=b"{}") == 415
    assert post(auth=(TOKEN_ID, "wrong"), json=SEND) == 401
    assert post(json=SEND) == 401
    assert post(json=SEND, headers={"Authorization": "Basic %%%"}) == 401
    assert world.sent == {}
    assert post(auth=who, json=SEND) == 204
    assert post(auth=who, json=SEND) == 402
    assert len(world.sent) == 1


def test_a_limit_of_requests() -> None:
    _, api = simulated(limit=2)
    codes = [api.get("/account", auth=(TOKEN_ID, TOKEN)) for _ in range(3)]
    assert [answer.status_code for answer in codes] == [200, 200, 429]
    assert int(codes[-1].headers["Retry-After"]) > 0


def test_an_account_without_a_history_tells_nothing() -> None:
    world, _ = simulated(history_life_time="NONE")
    world.send("s0", NUMBER, "x")
    assert world.entries() == []
