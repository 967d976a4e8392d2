"""The shapes that an answer may have, beside that of the simulator."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest

from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.api.answers import Message
from receiver.providers.zimsend.api.errors import (
    RequestRefused,
)
from tests.canned import Canned, Step, ok, raw, status
from tests.providers.zimsend.api.calls import NUMBER


def test_the_other_shape_of_a_batch(once: ZimSend, server: Canned) -> None:
    counts = {"total_messages": 4, "queued_messages": 3, "failed_messages": 1}
    document = {"batch_id": "batch_7", **counts, "message_ids": ["msg_1", None, "msg_2", 3, 3.5]}
    server.answers(ok(document))
    result = once.send_bulk([NUMBER] * 4, "x")
    assert (result.batch_id, result.total, result.queued, result.failed) == ("batch_7", 4, 3, 1)
    assert result.messages == (Message("msg_1"), Message("msg_2"), Message("3"))
    assert result.raw == document


def test_a_batch_of_which_not_all_are_queued(once: ZimSend, server: Canned) -> None:
    row = {"to": "112", "status": "failed", "error": {"code": "INVALID_NUMBER"}}
    rows = [{"message_id": "msg_1", "to": NUMBER, "status": "queued"}, row]
    server.answers(ok({"messages": rows, "total_recipients": 2}))
    result = once.send_bulk_personalized([])
    assert [message.message_id for message in result.messages] == ["msg_1"]
    assert result.refused == (row,)
    assert (result.batch_id, result.total) == (None, 2)


def test_the_other_shape_of_the_history(once: ZimSend, server: Canned) -> None:
    row = {
        "message_id": "msg_1",
        "status": "failed",
        "to": NUMBER,
        "message": "x",
        "priority": "high",
        "device_id": "dev_1",
        "queued_at": "2026-11-20T08:15:42.5Z",
        "failed_at": "2026-11-20 09:15:43+01:00",
        "sent_at": None,
        "metadata": {"a": [1]},
    }
    told = {"page": 3, "limit": 20, "total": 41, "pages": 3}
    server.answers(ok({"messages": [row], "pagination": told}))
    page = once.history()
    assert (page.page, page.limit, page.total_items, page.total_pages) == (3, 20, 41, 3)
    [message] = page.messages
    assert (message.priority, message.device_id, message.metadata) == ("high", "dev_1", {"a": [1]})
    assert message.queued_at == datetime(2026, 11, 20, 8, 15, 42, 500_000, tzinfo=UTC)
    assert message.failed_at == datetime(2026, 11, 20, 8, 15, 43, tzinfo=UTC)
    assert message.sent_at is None
    assert message.raw == row


def rows(*ids: str, **told: Any) -> Step:
    return ok({"data": [{"message_id": i} for i in ids], "pagination": told})


@pytest.mark.parametrize(
    ("steps", "pages"),
    [
        ([rows("a", pages=2), rows("b", pages=2), rows("c")], ["a", "b"]),
        ([rows("a", "b"), rows("c"), rows()], ["ab", "c"]),  # it tells no number of pages
        ([rows("a", "b", page=1)], ["ab"]),  # it passes over `page`
        ([rows("a", total_pages=1), rows("b")], ["a"]),
        ([rows("a", total_pages="many"), rows("b"), rows()], ["a", "b"]),
        ([rows(total_pages=9)], []),
    ],
)
def test_the_history_has_an_end(
    once: ZimSend, server: Canned, steps: list[Step], pages: list[str]
) -> None:
    server.answers(*steps)
    shown = [page.messages for page in islice(once.history_pages(), 9)]
    assert ["".join(m.message_id for m in messages) for messages in shown] == pages
    asked = [re.search(r"page=(\d+)&limit=(\d+)", seen.path) for seen in server.seen]
    assert [found and found.groups() for found in asked] == [
        (str(number), "100") for number in range(1, len(asked) + 1)
    ]


def test_pages_are_fetched_when_they_are_asked_for(once: ZimSend, server: Canned) -> None:
    server.answers(rows("a", pages=2), rows("b", pages=2))
    pages = once.history_pages()
    assert server.seen == []
    next(pages)
    assert len(server.seen) == 1


@pytest.mark.parametrize("key", ["webhooks", "data", None])
def test_the_shapes_of_a_list(once: ZimSend, server: Canned, key: str | None) -> None:
    listed = [{"webhook_id": "wh_1", "events": ["sms.sent", 5], "url": 5}]
    server.answers(ok({key: listed} if key else listed))
    [webhook] = once.webhooks()
    assert (webhook.webhook_id, webhook.events, webhook.url) == ("wh_1", ("sms.sent",), None)


def test_deleting_needs_no_body(once: ZimSend, server: Canned) -> None:
    server.answers(raw(b"HTTP/1.1 204 No Content\r\n\r\n", close=False))
    once.delete_webhook("wh_1")
    server.answers(status(200, b"deleted"))
    once.delete_webhook("wh_1")
    server.answers(ok({"success": False, "error": {"code": "WEBHOOK_NOT_FOUND"}}))
    with pytest.raises(RequestRefused):
        once.delete_webhook("wh_1")


@pytest.mark.parametrize(
    ("document", "left"),
    [
        ({"success": False, "error": {"code": "INVALID_OTP", "message": "no"}}, None),
        ({"error": "no", "code": "INVALID_OTP", "details": {"attempts_remaining": 2}}, 2),
        ({"error": "no", "code": "INVALID_OTP", "attempts_remaining": 0}, 0),
        ({"error": {"code": "INVALID_OTP", "message": "no", "attempts_remaining": 1}}, 1),
    ],
)
def test_a_wrong_code_as_an_error(
    once: ZimSend, server: Canned, document: Any, left: int | None
) -> None:
    server.answers(ok(document, 400))
    check = once.verify_otp("otp_1", "123456")
    assert (check.valid, check.message, check.attempts_remaining) == (False, "no", left)
    assert check.raw == document


def test_no_success_that_is_an_answer(once: ZimSend, server: Canned) -> None:
    server.answers(ok({"success": False, "valid": False, "attempts_remaining": 1}))
    assert once.verify_otp("otp_1", "1").attempts_remaining == 1
    server.answers(ok({"success": False, "message": "no answer", "response_status": None}))
    assert once.test_webhook("wh_1").response_status is None


def test_numbers_and_times_that_make_no_sense(once: ZimSend, server: Canned) -> None:
    odd = {"delivered": True, "failed": 1.5, "pending": "3", "total_sent": 10**400}
    server.answers(ok({"stats": {**odd, "delivery_rate": 10**400, "by_day": [{"sent": None}]}}))
    stats = once.stats()
    assert (stats.delivered, stats.failed, stats.pending) == (None, None, None)
    assert (stats.total_sent, stats.delivery_rate) == (10**400, None)
    times = {"sent_at": "0001-01-01T00:00:00+05:00", "queued_at": 5, "delivered_at": "soon"}
    server.answers(ok({"message_id": "a", "priority": [], "metadata": 1, "to": 5, **times}))
    assert once.status("a") == Message("a", to="5")
