"""What a receiver would know, without one: callbacks and reports, merged by the real code."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from receiver import ids, status, times
from receiver.event import Incoming
from receiver.providers.simulating.world import Post
from receiver.providers.smscx import reports, webhook
from receiver.providers.smscx.api import answers
from receiver.providers.smscx.simulator.world import World, view
from receiver.store import Report

BEGAN = 20_777 * times.DAY + 9 * times.HOUR
RETENTION = 90 * times.DAY


class Mirror:
    def __init__(self) -> None:
        self.events: dict[str, Incoming] = {}
        self.rows: dict[str, status.Row] = {}
        self.known: dict[str, list[Report]] = defaultdict(list)
        self.duplicates = 0

    def take(self, items: Iterable[object]) -> list[str]:
        outcomes = []
        for item in items:
            assert isinstance(item, Incoming)
            if item.id in self.events:
                self.duplicates += 1
                outcomes.append("duplicate")
                continue
            outcomes.append("accepted")
            self.events[item.id] = item
            if item.says is not None and item.message_id is not None:
                row = self.rows.get(item.message_id, {})
                self.rows[item.message_id] = status.merge(row, item.says)
                report = Report(item.type, item.reported_at, item.has_error, item.source)
                self.known[item.message_id].append(report)
        return outcomes

    def callback(self, post: Post, now: int) -> str:
        """Answer a callback as the service does."""
        items = webhook.parse(post.event.body, received_at=now, retention=RETENTION)
        counts = json.loads(webhook.answer(items, self.take(items)))
        assert counts["accepted"] + counts["duplicates"] == len(post.event.items)
        return "200"

    def reconcile(self, rows: Iterable[dict[str, Any]], now: int) -> list[Incoming]:
        learnt = []
        for row in rows:
            message = answers.report({"data": row})
            known = self.known[ids.key("smscx", message.msg_id)]
            found = reports.facts(message, now=now, retention=RETENTION, known=known)
            self.take(found)
            learnt += found
        return learnt

    def check(self, world: World) -> None:
        """Whether it is the truth, as far as SMS.CX can tell it."""
        for message in world.messages.values():
            row = self.rows.get(ids.key("smscx", message.id))
            assert row is not None, message
            shown = status.describe(row)
            assert shown["status"] == webhook.STATES[message.status]
            if message.updated_at is not None:
                second = message.updated_at - message.updated_at % times.SECOND
                assert shown[f"{shown['status']}_at"] == second
            code = None if message.error_code is None else str(message.error_code)
            assert (shown["error"] and shown["error"]["code"]) == code


def play(world: World, answer: Callable[[Post, int], str]) -> list[Post]:
    """Live through everything, moment by moment; each request is answered by `answer`."""
    posts = []
    while (at := world.next_at) is not None:
        for post in world.advance(at):
            posts.append(post)
            outcome = "lost" if post.lost else answer(post, at)
            world.answered(post, outcome)
    return posts


def rows(world: World) -> list[dict[str, Any]]:
    return [view(message) for message in world.messages.values()]
