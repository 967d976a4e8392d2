"""sipgate's history is asked by the service itself: when, by whom, and what is told of it."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from receiver import times
from receiver.polling import LEASE
from receiver.providers.sipgate.polling import NOTE
from receiver.providers.sipgate.simulator.world import Habits
from receiver.times import DAY, HOUR, MINUTE, SECOND, iso
from tests.polling.life import NUMBER, Life, handled
from tests.web.v1.openapi import API


@pytest.mark.each_engine
def test_what_was_written_in_the_app_is_learnt_once_and_no_loss(life: Life) -> None:
    first, other = life.polling, life.start()
    life.world.send("s0", NUMBER, "Aus der App", source="app")
    written = life.world.send("s0", NUMBER, "Später", life.clock.time + HOUR, source="app")
    seen = []

    def meanwhile(request: httpx.Request) -> None:
        seen.append(other.step())

    life.wire.fault = meanwhile
    assert first.step() is not None
    assert seen
    assert set(seen) == {None}
    life.wire.fault = lambda request: None
    life.wait(5 * MINUTE - SECOND)
    assert (first.step(), other.step()) == (None, None)
    life.wait(SECOND)
    assert other.step() is not None
    assert first.step() is None
    assert len(life.look(65 * MINUTE)) == 12  # one was just made
    assert written.id in {str(sms.id) for sms in life.world.entries()}
    sent = {f"sipgate:{sms.id}" for sms in life.world.sent.values()}
    assert life.states() == dict.fromkeys(sent, "sent")
    assert {event["source"] for event in life.events()} == {"poll"}
    saw = handled(life)
    assert saw == {(sms.id, "sms.sent", "poll"): 1 for sms in life.world.sent.values()}
    told = life.get("/v1/reconciliation")
    assert (told["missed"], told["gaps"]) == (None, [])


def test_asking_by_hand_is_not_needed(life: Life) -> None:
    told = life.apps[0].test_cli_runner().invoke(args=["reconcile"])
    assert told.exit_code == 0
    assert "every 5 minutes" in told.output


@pytest.mark.each_engine
def test_each_ends_where_it_should(life: Life) -> None:
    """Through the whole service: equal texts, a lost answer, archived, scheduled, national."""
    life.world.habits = Habits(national=1.0)
    twins = [life.send(text="Zweimal") for _ in range(2)]
    life.lose_the_next_answer()
    lost = life.send(text="Antwort verloren")
    scheduled = life.send(text="Später", scheduled_at=iso(life.clock.time + 2 * HOUR))
    in_app = life.world.send("s0", NUMBER, "Aus der App", source="app")
    of_france = life.send(to="+33612345678", text="Bonjour")
    for sms in life.world.sent.values():
        sms.archived = sms.text == "Zweimal"
    requests = life.world.requests
    life.look(10 * MINUTE)
    national = [e for e in life.world.entries() if life.world.view(e)["target"].startswith("0")]
    assert len(national) == 4
    ours = dict.fromkeys((*twins, lost, scheduled, of_france), "sent")
    ours[scheduled] = "queued"
    assert life.states() == ours | {f"sipgate:{in_app.id}": "sent"}
    life.look(125 * MINUTE)
    ours[scheduled] = "sent"
    assert life.states() == ours | {f"sipgate:{in_app.id}": "sent"}
    assert life.world.requests == requests == 5  # none is sent twice
    assert set(handled(life).values()) == {1}
    assert life.get("/v1/reconciliation")["polling"]["last_pass"]["waiting"] == 0


@pytest.mark.parametrize("dies_at", range(16))
def test_whatever_ends_the_process_the_next_one_goes_on(life: Life, dies_at: int) -> None:
    """It dies at its n-th word to the store or to sipgate, and says nothing any more."""

    class Killed(BaseException):
        pass

    ours = [life.send(text=f"Nummer {number}") for number in range(3)]
    for number in range(5):
        life.world.send("s0", NUMBER, f"App {number}", source="app")
    life.wait(MINUTE)
    steps = 0
    dies, other = life.receiver, life.start()

    def dying(function: Any) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > dies_at:
                raise Killed
            return function(*arguments, **named)

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("receiver.polling._GROUP", 4)
        patch.setattr(dies.ingest, "put", dying(dies.ingest.put))
        for name in ("keep_turn", "write_note", "write_notes", "reports"):
            patch.setattr(dies.store, name, dying(getattr(dies.store, name)))
        assert dies.polling is not None
        with pytest.raises(Killed):
            dies.polling.step()
    life.wait(LEASE + SECOND)
    for _ in range(2):
        other.step()
        life.wait(5 * MINUTE)
    assert {life.states()[message_id] for message_id in ours} == {"sent"}
    assert len(life.states()) == 8
    assert set(handled(life).values()) == {1}


def test_who_was_too_slow_leaves_it_to_who_has_taken_over(life: Life) -> None:
    first, other = life.polling, life.start()
    for number in range(3):
        life.world.send("s0", NUMBER, f"App {number}", source="app")
    life.wait(MINUTE)
    took_over = []

    def hang(request: httpx.Request) -> None:
        if not took_over:
            took_over.append(None)
            life.wait(LEASE + SECOND)
            took_over[0] = other.step()  # type: ignore[call-overload]

    life.wire.fault = hang
    assert first.step() is None
    assert took_over[0] is not None
    went = other.went()
    assert went is not None
    assert (went.problem, went.ended_at) == (None, life.clock.time)
    assert len(life.events()) == 3


def test_a_process_that_is_about_to_end_makes_no_other_call(life: Life) -> None:
    life.wire.fault = lambda request: life.polling.stop()
    assert life.polling.step() is None
    assert len(life.wire.calls) == 1
    life.wire.fault = lambda request: None
    assert life.start().step() is not None  # and holds nobody up


def test_not_by_a_clock_that_is_not_trusted(life: Life) -> None:
    right = life.clock.time
    life.clock.time = times.RELEASED - DAY
    assert life.polling.step() is None
    assert life.wire.calls == []
    assert life.receiver.store.note(NOTE) is None
    life.clock.time = right
    assert life.polling.step() is not None


@pytest.mark.parametrize("ahead", [8 * MINUTE, 2 * HOUR])
def test_a_clock_that_was_ahead_holds_nobody_up(life: Life, ahead: int) -> None:
    right = life.clock.time
    life.clock.time += ahead
    assert life.polling.step() is not None
    life.clock.time = right
    assert life.start().step() is not None


BAD_DAYS = {
    "its token": (lambda request: httpx.Response(401), "HTTP 401"),
    "its limit": (lambda request: httpx.Response(429, headers={"Retry-After": "100"}), "HTTP 429"),
    "a proxy's page": (lambda request: httpx.Response(200, html="<h1>Welcome</h1>"), "understood"),
    "an answer of nonsense": (lambda request: httpx.Response(200, json={"items": 1}), "understood"),
}


@pytest.mark.parametrize(("fault", "reason"), BAD_DAYS.values(), ids=BAD_DAYS)
def test_an_account_that_fails_is_told_once(
    life: Life, fault: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    life.look(5 * MINUTE)
    before = life.get("/v1/reconciliation")["polling"]
    assert before["last_pass"] == {
        "ended_at": before["last_complete_at"],
        "complete": True,
        "problem": None,
        "waiting": 0,
    }
    assert "polling" not in life.get("/readyz")["warnings"]
    life.world.send("s0", NUMBER, "Aus der App", source="app")
    life.wire.fault = fault
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("receiver.providers.exchange.FIRST_PAUSE", 0.0)
        assert life.look(30 * MINUTE) == []
    (line,) = [r.message for r in caplog.records if "could not be learnt" in r.message]
    assert reason in line
    answer = life.client.get("/v1/reconciliation", headers={"X-API-Key": "key"})
    API["/v1/reconciliation"]["GET"].validate_response(answer)
    told = answer.get_json()["polling"]
    assert reason in told["last_pass"]["problem"]
    assert not told["last_pass"]["complete"]
    assert told["last_complete_at"] == before["last_complete_at"]
    assert life.clock.time - 5 * MINUTE <= times.read(told["last_pass"]["ended_at"])  # type: ignore[operator]
    warning = eventually_warned(life)
    assert reason in warning
    assert before["last_complete_at"] in warning
    life.wire.fault = lambda request: None
    assert life.look(5 * MINUTE)
    assert [r.message for r in caplog.records if "read again" in r.message]
    assert list(life.states().values()) == ["sent"]
    assert life.get("/v1/reconciliation")["polling"]["last_pass"]["problem"] is None


def test_an_account_without_a_history_is_told_so(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    life.world.history_life_time = "NONE"
    life.send()
    life.look(30 * MINUTE)
    (line,) = [r.message for r in caplog.records if "could not be learnt" in r.message]
    assert "historyLifeTime is NONE" in line
    assert "historyLifeTime is NONE" in life.get("/readyz")["warnings"]["polling"]
    assert list(life.states().values()) == ["queued"]
    life.world.history_life_time = "THIRTY_DAYS"
    assert life.look(5 * MINUTE)
    assert list(life.states().values()) == ["sent"]
    # Nobody needs to be allowed to ask for it.
    life.world.sent.clear()
    life.wire.fault = lambda request: (
        httpx.Response(403) if request.url.path == "/account" else None
    )
    life.wait(DAY)
    assert life.look(5 * MINUTE)
    assert "GET /account" in life.wire.calls


def eventually_warned(life: Life) -> str:
    """What `/readyz` tells; it looks at most once a second."""
    told: str = life.apps[0].test_client().get("/readyz").get_json()["warnings"].get("polling")
    return told or str(life.start() and life.get("/readyz")["warnings"]["polling"])


@pytest.mark.each_engine
def test_who_was_forgotten_is_found_in_the_history_all_the_same(life: Life) -> None:
    """An SMS that is looked for when its number is forgotten, and one that is sent after that."""
    life.send(text="Vorher")
    told = life.apps[0].test_cli_runner().invoke(args=["forget", NUMBER, "--yes"])
    assert told.exit_code == 0, told.output
    life.send(text="Nachher")
    life.look(30 * MINUTE)
    assert sorted(life.states().values()) == ["sent", "sent"]
    assert len(life.events()) == 4
    assert NUMBER[1:] not in repr(
        [life.receiver.store.body(event["event_id"]) for event in life.events()]
    ) + repr(life.receiver.store.notes(""))
