"""What a program expects of `/v1` that knows only ZimSend's documents."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.web.v1.messages.known import (
    BARE,
    DAYS,
    HISTORY,
    MESSAGES,
    ODD,
    REASON,
    REASONS,
    STATS,
    STATUS,
    STORIES,
    STORY_MESSAGES,
    get,
)

pytestmark = pytest.mark.each_engine

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?Z")

#: The fields that its documents show, and what a program may find in them.
DOCUMENTED_STATUS = {
    "success": bool,
    "message_id": str,
    "status": str,
    "to": str,
    "message": str,
    "priority": int | str,
    "created_at": str | None,
    "queued_at": str | None,
    "sent_at": str | None,
    "delivered_at": str | None,
    "metadata": dict | None,
}
#: Those of both documents.
DOCUMENTED_ROW = {
    "message_id": str,
    "status": str,
    "to": str,
    "message": str,
    "sent_at": str | None,
    "delivered_at": str | None,
    "priority": int | str,
    "device_id": str,
    "queued_at": str | None,
    "metadata": dict | None,
}


def holds(answer: dict[str, Any], documented: dict[str, Any]) -> None:
    for name, kind in documented.items():
        assert isinstance(answer[name], kind), name
        if name.endswith("_at") and answer[name] is not None:
            assert TIME.fullmatch(answer[name]), name


#: The times that its client waits for, by what was reported.
TIMES = {
    "queued": {"queued_at"},
    "processing": {"queued_at"},
    "sent": {"queued_at", "sent_at"},
    "delivered": {"queued_at", "sent_at", "delivered_at"},
    "failed": {"queued_at"},
    "expired": {"queued_at"},
    "cancelled": {"queued_at"},
    "resent": {"queued_at", "sent_at"},
}


@pytest.mark.parametrize("story", STORIES)
def test_its_client_reads_a_status(client: FlaskClient, story: str) -> None:
    for day in range(DAYS):
        message_id = f"msg_{story}_{day}"
        answer = get(client, STATUS, message_id)
        holds(answer, DOCUMENTED_STATUS)
        assert answer["success"] is True
        assert answer["message_id"] == message_id
        assert answer["status"] == STORY_MESSAGES[message_id]
        assert answer["to"] == "+33612345678"
        assert answer["metadata"] == {"order": 17, "tags": ["a", "b"]}
        assert answer["created_at"] == answer["queued_at"]
        shown = {name for name in ("queued_at", "sent_at", "delivered_at") if answer[name]}
        assert shown == TIMES[story]


@pytest.mark.parametrize(
    ("story", "error"),
    [("failed", REASON), ("expired", {"code": "EXPIRED", "message": None}), ("resent", None)],
)
def test_it_is_told_why_and_when_a_message_failed(
    client: FlaskClient, story: str, error: dict[str, str | None] | None
) -> None:
    answer = get(client, STATUS, f"msg_{story}_0")
    assert answer["error"] == error
    assert TIME.fullmatch(answer["failed_at"])


@pytest.mark.parametrize("form", REASONS)
def test_a_reason_has_one_form(client: FlaskClient, form: str) -> None:
    answer = get(client, STATUS, f"msg_reason_{form}")
    assert answer["error"] == REASONS[form][1]


@pytest.mark.parametrize("name", [name for name in ODD if name != "wrong types"])
def test_odd_contents_come_back_as_they_were(client: FlaskClient, name: str) -> None:
    answer = get(client, STATUS, f"msg_{name}")
    # But half of a surrogate pair would make the whole answer unreadable for strict readers.
    text = json.dumps(ODD[name], ensure_ascii=False).encode("utf-16", "surrogatepass")
    expected = json.loads(text.decode("utf-16", "replace"))
    assert {field: answer[field] for field in ODD[name]} == expected


@pytest.mark.parametrize("message_id", ["msg_wrong types", "msg_all null", BARE])
def test_what_is_unknown_is_null(client: FlaskClient, message_id: str) -> None:
    answer = get(client, STATUS, message_id)
    for name in ("to", "message", "device_id", "metadata", "priority", "error"):
        assert answer[name] is None
    for name in ("created_at", "queued_at", "delivered_at", "failed_at", "cancelled_at"):
        assert answer[name] is None
    assert answer["status"] == "sent"
    assert TIME.fullmatch(answer["sent_at"])  # the envelope's time, else the receipt


def test_its_client_walks_through_all_pages(client: FlaskClient) -> None:
    found: list[dict[str, Any]] = []
    total_pages = -(-len(MESSAGES) // 7)
    for page in range(1, total_pages + 1):
        answer = get(client, HISTORY, page=page, limit=7)
        assert answer["success"] is True
        assert answer["pagination"] == {
            "current_page": page,
            "per_page": 7,
            "total_pages": total_pages,
            "total_items": len(MESSAGES),
            "page": page,
            "limit": 7,
            "total": len(MESSAGES),
            "pages": total_pages,
        }
        assert len(answer["data"]) == 7 or page == total_pages
        found += answer["data"]
    assert len({message["message_id"] for message in found}) == len(found) == len(MESSAGES)
    for message in found:
        if message["message_id"] in STORY_MESSAGES:
            holds(message, DOCUMENTED_ROW)
            assert message["status"] == STORY_MESSAGES[message["message_id"]]
    assert get(client, HISTORY, page=total_pages + 1, limit=7)["data"] == []
    assert len(get(client, HISTORY)["data"]) == min(50, len(MESSAGES))


def test_its_client_reads_statistics(client: FlaskClient) -> None:
    answer = get(client, STATS, from_date="2026-11-01", to_date="2026-11-30")
    assert answer["success"] is True
    assert answer["period"] == {"from": "2026-11-01", "to": "2026-11-30"}
    stats = answer["stats"]
    counts = Counter(m["status"] for m in get(client, HISTORY, limit=100)["data"])
    assert stats["delivered"] == counts["delivered"] > 0
    assert stats["failed"] == counts["failed"] > 0
    assert stats["pending"] == counts["queued"] + counts["processing"] + counts["sent"] > 0
    assert stats["total_sent"] == stats["delivered"] + stats["failed"]
    assert stats["delivery_rate"] == round(100 * stats["delivered"] / stats["total_sent"], 2)
    assert len(stats["by_day"]) == DAYS
    assert [day["date"] for day in stats["by_day"]] == sorted(d["date"] for d in stats["by_day"])
    for day in stats["by_day"]:
        assert day["sent"] == day["delivered"] + day["failed"]
    for name, in_all in (("sent", "total_sent"), ("delivered", "delivered"), ("failed", "failed")):
        assert sum(day[name] for day in stats["by_day"]) == stats[in_all]


def test_no_statistics(client: FlaskClient) -> None:
    assert get(client, STATS, device_id="unknown")["stats"] == {
        "total_sent": 0,
        "delivered": 0,
        "failed": 0,
        "pending": 0,
        "delivery_rate": 0,
        "by_day": [],
        "by_error": [],
    }
