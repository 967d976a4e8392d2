"""SMS.CX's callbacks: the token, the items of a batch, and what is answered."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest

from receiver import ids, status
from receiver.errors import Refused, Unusable
from receiver.event import Incoming, Rejected, reject
from receiver.providers.smscx import webhook
from receiver.providers.smscx.samples import REPORTS, SAMPLES, sample
from receiver.providers.smscx.webhook import MOST_ITEMS, answer, authenticate, parse, read
from tests.providers.callers import NOW, RETENTION

TOKEN, OTHER = b"t" * 24, "ü".encode() * 20
ITEM: dict[str, Any] = {
    "campaignId": "5f0c2a4e-9d1b-4c35-8e6f-0a7b1c2d3e4f",
    "msgId": "9b1e2a4e-9d1b-4c35-8e6f-0a7b1c2d3e4f",
    "statusCode": 3,
    "status": "DELIVERED",
    "errorCode": None,
    "datetime": "2026-11-20 08:15:32",
    "trackData": "1c9f2a4e-9d1b-4c35-8e6f-0a7b1c2d3e4f",
}


def take(*items: Any, event: str = "dlr_update", **how: Any) -> list[Incoming | Rejected]:
    body = json.dumps({"event": event, "data": list(items)}).encode()
    return parse(body, received_at=NOW, retention=RETENTION, **how)


def one(item: Any, **how: Any) -> Incoming:
    (taken,) = take(item, **how)
    assert isinstance(taken, Incoming)
    return taken


def told(**changes: Any) -> dict[str, Any]:
    says = one(ITEM | changes).says
    assert says is not None
    return status.describe(says)


# --- the token


def test_the_tokens_and_nothing_else() -> None:
    assert authenticate([TOKEN, OTHER], TOKEN.decode())
    assert authenticate([OTHER, TOKEN], TOKEN.decode())
    assert authenticate([TOKEN, OTHER], OTHER.decode())
    wrong = ("", "t", "t" * 23, "t" * 25, "T" * 24, "t" * 23 + "\x00", "\ud800", "é" * 24)
    for claimed in (*wrong, "x" * 1_000_000):
        assert not authenticate([TOKEN, OTHER], claimed)
        assert not authenticate([], claimed)


def test_every_token_is_compared_whatever_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    """In constant time: only equally long digests meet, and always as many."""
    compared: list[tuple[int, int]] = []
    real = webhook.hmac.compare_digest

    def watched(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(webhook.hmac, "compare_digest", watched)
    for claimed in (TOKEN.decode(), OTHER.decode(), "", "x" * 1000):
        compared.clear()
        authenticate([TOKEN, OTHER], claimed)
        assert compared == [(32, 32), (32, 32)]


# --- the statuses


@pytest.mark.parametrize(
    ("named", "code", "state", "error"),
    [
        ("ACCEPTED", None, "queued", None),
        ("SCHEDULED", None, "queued", None),
        ("SENT", None, "sent", None),
        ("DELIVERED", None, "delivered", None),
        ("DELIVERED", 27, "delivered", None),
        ("FAILED", 27, "failed", "27"),
        ("FAILED", "27", "failed", "27"),
        ("FAILED", "ABSENT", "failed", "ABSENT"),
        ("FAILED", 10**400, "failed", "1" + "0" * 400),
        *[("FAILED", code, "failed", "FAILED") for code in (None, 0, "", "0", " ", True, [], {})],
        *[("REJECTED", code, "failed", "REJECTED") for code in (None, 0, 27, "27")],
        *[("NO COVERAGE", code, "failed", "NO_COVERAGE") for code in (None, 0, 27, "27")],
        ("no_coverage", None, "failed", "NO_COVERAGE"),
        (" Delivered ", None, "delivered", None),
    ],
)
def test_the_map(named: str, code: Any, state: str, error: str | None) -> None:
    shown = told(status=named, errorCode=code)
    assert shown["status"] == state
    assert (shown["error"] and shown["error"]["code"]) == error
    assert one(ITEM | {"status": named}).type == f"sms.{state}"


def test_every_documented_status_has_a_sample() -> None:
    for named, state in webhook.STATES.items():
        body = sample(
            f"sms.{state}", event_id="e", message_id="m", to="+336", now=NOW, status=named
        )
        (event,) = parse(body, received_at=NOW, retention=RETENTION)
        assert isinstance(event, Incoming)
        assert event.type == f"sms.{state}"
    assert set(REPORTS) == set(webhook.STATES)


@pytest.mark.parametrize("changes", [{"status": "QUEUED?"}, {"status": None}, {"status": 3}])
def test_an_unknown_status_is_kept_as_it_came(changes: dict[str, Any]) -> None:
    event = one(ITEM | changes)
    assert event.type == "smscx.dlr_update"
    assert event.message_id == ids.key("smscx", ITEM["msgId"])
    assert event.says is None
    assert event.timestamp is not None


def test_what_a_call_told_is_kept_under_the_name_of_reports() -> None:
    assert one({"status": "SENT"}, event=webhook.ROW).type == "smscx.dlr_update"


def test_without_an_id_it_is_kept_as_it_came() -> None:
    event = one({name: value for name, value in ITEM.items() if name != "msgId"})
    assert (event.type, event.message_id, event.says) == ("smscx.dlr_update", None, None)


def test_an_id_of_digits() -> None:
    assert one(ITEM | {"msgId": 17}).message_id == ids.key("smscx", "17")


def test_a_report_says_nothing_of_what_was_given_with_the_request() -> None:
    """Else it would win over the metadata that the gateway has put into the mirror."""
    assert set(one(ITEM).says or {}) == {"delivered"}


# --- other callbacks


def test_every_other_callback_is_an_event_an_item() -> None:
    items = [{"phoneNumber": f"+3361234567{n}"} for n in range(3)]
    events = take(*items, event="new_optout")
    assert [event.type for event in events if isinstance(event, Incoming)] == [
        "smscx.new_optout"
    ] * 3
    assert len({event.id for event in events if isinstance(event, Incoming)}) == 3


def test_a_callback_that_nobody_knows() -> None:
    event = one({"msgId": "m", "status": "DELIVERED"}, event="new\n" + "x" * 300)
    assert event.type == ("smscx.new�" + "x" * 300)[:200]
    assert event.says is None


def test_the_same_item_in_two_callbacks_is_two_events() -> None:
    assert one(ITEM, event="shortlink_hit").id != one(ITEM, event="shortlink_hit_update").id


def test_a_single_item_that_stands_alone() -> None:
    body = json.dumps({"event": "otp_update", "data": {"otpId": "o"}}).encode()
    (event,) = parse(body, received_at=NOW, retention=RETENTION)
    assert isinstance(event, Incoming)
    assert read(event.body)[0] == {"otpId": "o"}
    deep: Any = {}
    for _ in range(198):
        deep = [deep]
    for data in (deep[0], {"x": deep[0]}):
        body = json.dumps({"event": "otp_update", "data": data}).encode()
        try:
            events = parse(body, received_at=NOW, retention=RETENTION)
        except Unusable:
            continue
        for each in events:
            if isinstance(each, Incoming):
                read(each.body)


# --- batches


def test_ids_are_of_the_item_whatever_its_batch_and_spelling() -> None:
    digest = hashlib.sha256(
        json.dumps(ITEM, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
    assert one(ITEM).id == ids.key("smscx", f"sha256:{digest}")
    turned = dict(reversed(ITEM.items()))
    alone, among = one(ITEM), take({"msgId": "x"}, turned, ITEM)
    assert isinstance(among[1], Incoming)
    assert among[1].id == among[2].id == alone.id  # type: ignore[union-attr]
    assert among[1].body == alone.body
    assert one(ITEM | {"datetime": "2026-11-20 08:15:33"}).id != alone.id


@pytest.mark.parametrize("broken", [None, 1, "x", [], True, [ITEM]])
def test_one_broken_item_is_alone_in_quarantine(broken: Any) -> None:
    others = [ITEM | {"msgId": f"m{n}"} for n in range(199)]
    items = take(*others[:100], broken, *others[100:])
    (rejected,) = [item for item in items if isinstance(item, Rejected)]
    assert items.index(rejected) == 100
    assert ids.split(rejected.digest)[0] == "smscx"
    assert rejected.body is not None
    # What quarantine keeps can be tried again.
    (again,) = parse(rejected.body, received_at=NOW, retention=RETENTION)
    assert again == rejected
    outcomes = ["quarantined" if item is rejected else "accepted" for item in items]
    assert json.loads(answer(items, outcomes)) == {
        "status": "accepted",
        "accepted": 199,
        "duplicates": 0,
        "quarantined": 1,
    }


def test_the_answer_counts_what_became_of_each() -> None:
    items = take(ITEM, ITEM, ITEM | {"msgId": "b"}, ITEM | {"msgId": "c"}, 7)
    outcomes = ["accepted", "duplicate", "accepted", "quarantined", "quarantined"]
    counts = json.loads(answer(items, outcomes))
    assert (counts["accepted"], counts["duplicates"], counts["quarantined"]) == (2, 1, 2)
    assert json.loads(answer([], []))["accepted"] == 0


def test_a_body_that_is_unusable_as_a_whole_is_answered_400() -> None:
    with pytest.raises(Refused) as caught:
        answer([reject(b"{", "the body is not JSON", received_at=NOW)], ["quarantined"])
    assert (caught.value.status, caught.value.detail) == (400, "the body is not JSON")
    alone = take(None)
    assert json.loads(answer(alone, ["quarantined"]))["quarantined"] == 1


def test_what_is_too_old_is_alone_in_quarantine() -> None:
    old, new = take(ITEM | {"datetime": "2003-01-01 00:00:00"}, ITEM)
    assert isinstance(old, Rejected)
    assert "90 days" in old.reason
    assert isinstance(new, Incoming)


def test_the_zero_of_a_clock_is_no_time() -> None:
    assert one(ITEM | {"datetime": "1970-01-01 00:00:00"}).timestamp is None


def test_more_than_the_documented_200_are_taken() -> None:
    assert len(take(*[ITEM] * MOST_ITEMS)) == MOST_ITEMS
    with pytest.raises(Unusable, match="2000"):
        take(*[ITEM] * (MOST_ITEMS + 1))


def test_200_items_take_a_small_part_of_the_100_ms() -> None:
    body = json.dumps(
        {"event": "dlr_update", "data": [ITEM | {"msgId": f"{n:036}"} for n in range(200)]}
    ).encode()
    took = []
    for _ in range(5):
        began = time.perf_counter()
        assert len(parse(body, received_at=NOW, retention=RETENTION)) == 200
        took.append(time.perf_counter() - began)
    assert min(took) < 0.03


@pytest.mark.parametrize("data", ["null", '"x"', "1", "true"])
def test_data_that_is_no_list(data: str) -> None:
    with pytest.raises(Unusable):
        parse(
            b'{"event": "dlr_update", "data": %s}' % data.encode(),
            received_at=NOW,
            retention=RETENTION,
        )


def test_bytes_that_are_no_utf_8_are_replaced() -> None:
    body = b'{"event": "receive_sms", "data": [{"msgId": "m", "text": "caf\xe9"}]}'
    (event,) = parse(body, received_at=NOW, retention=RETENTION)
    assert isinstance(event, Incoming)
    assert read(event.body)[1]["message"] == "caf�"


# --- what is read of it again, and what is hidden


def test_read_gives_the_item_and_our_names() -> None:
    item, ours = read(one(ITEM | {"status": "FAILED", "errorCode": 27}).body)
    assert item == ITEM | {"status": "FAILED", "errorCode": 27}
    assert ours == {"status": "failed", "error": {"code": "27"}}
    received = {"msgId": "m", "from": "+336", "to": "+337", "text": "Stop"}
    assert read(one(received, event="receive_sms").body)[1] == {"to": "+337", "message": "Stop"}
    optout = one({"phoneNumber": 33612345678}, event="new_optout")
    assert read(optout.body)[1] == {"to": "33612345678"}


def test_texts_and_codes_are_hidden_at_any_depth() -> None:
    item = {"otpId": "o", "pin": "4829", "more": [{"text": "4829", "code": 4829}], "ttl": 300}
    event = one(item, event="otp_update", text_mode="masked")
    assert b"4829" not in event.body
    assert read(event.body)[0]["ttl"] == 300
    whole = one(item, event="otp_update")
    assert event.original == (hashlib.sha256(whole.body).hexdigest(), len(whole.body))
    assert event.id != whole.id  # of what is stored
    (rejected,) = take("4829", text_mode="none")
    assert isinstance(rejected, Rejected)
    assert rejected.body is None


def test_a_test_stays_one() -> None:
    callback = {"event": "dlr_update", "data": [ITEM], "test": True}
    (event,) = parse(json.dumps(callback).encode(), received_at=NOW, retention=RETENTION)
    assert isinstance(event, Incoming)
    assert json.loads(event.body)["test"] is True
    (again,) = parse(event.body, received_at=NOW, retention=RETENTION)
    assert again == event


def test_the_documented_callbacks() -> None:
    assert {name for name, _ in SAMPLES.values()} == {
        *("dlr_update", "receive_sms", "receive_viber", "receive_whatsapp", "new_optout"),
        *("shortlink_hit", "shortlink_hit_update", "attachment_hit", "attachment_hit_update"),
        "otp_update",
    }
