"""What a handler gets of an event, and that it cannot change it."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from receiver import Event, times
from receiver.errors import Unusable
from receiver.event import clean_id
from receiver.providers.zimsend.webhook import parse
from tests.providers.zimsend.bodies import CONNECTED, FAILED, SENT, envelope, handed, incoming

PROPERTIES = ("to", "status", "device_id", "error_code", "error_message", "metadata")


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (
            "sms.sent",
            SENT,
            ("+33612345678", "sent", "dev_1", None, None, {"order": 17, "tags": ["a", "b"]}),
        ),
        (
            "sms.failed",
            FAILED | {"metadata": None},
            ("+33612345678", "failed", "dev_1", "NO_CREDIT", "No credit left", {}),
        ),
        (
            "failed",
            {"error": "INVALID_NUMBER"},
            (None, "failed", None, "INVALID_NUMBER", None, {}),
        ),
        (
            "sms.failed",
            {"error": "The number does not exist"},
            (None, "failed", None, None, "The number does not exist", {}),
        ),
        ("sms.expired", {}, (None, "failed", None, "EXPIRED", None, {})),
        # The type says what happened, also if `status` says something else.
        ("sms.sent", {"status": "delivered"}, (None, "sent", None, None, None, {})),
        ("otp.sent", {"status": "sent", "to": "+331"}, ("+331", "sent", None, None, None, {})),
        ("otp.failed", {"error": "X"}, (None, None, None, None, None, {})),
        ("device.connected", CONNECTED, (None, None, "dev_1", None, None, {})),
        (
            "sms.failed",
            dict.fromkeys(FAILED, 5),
            ("5", "failed", "5", "5", None, {}),
        ),
        (
            "sms.failed",
            dict.fromkeys(FAILED, 5.5),
            (None, "failed", None, None, None, {}),
        ),
        ("fax.sent", {name: [1] for name in FAILED}, (None, None, None, None, None, {})),
        ("sms.failed", None, (None, "failed", None, None, None, {})),
    ],
)
def test_properties(kind: str, data: Any, expected: tuple[Any, ...]) -> None:
    event = handed(incoming(envelope(kind, data)))
    assert tuple(getattr(event, name) for name in PROPERTIES) == expected


def test_what_the_store_knows_is_handed_on() -> None:
    event = handed(incoming(envelope()), late=1, redacted=0, source="reconciliation", attempt=7)
    assert (event.id, event.type, event.message_id) == ("evt_1", "sms.sent", "msg_1")
    assert (event.late, event.redacted) == (True, False)
    assert (event.source, event.attempt) == ("reconciliation", 7)
    assert event.occurred_at.isoformat() == "2026-11-20T08:15:39+00:00"
    assert event.received_at.isoformat() == "2026-11-20T08:15:42+00:00"


@pytest.fixture
def event() -> Event:
    return handed(incoming(envelope("sms.failed", FAILED)))


@pytest.mark.parametrize(
    "name", [*(field.name for field in dataclasses.fields(Event)), "data", *PROPERTIES, "more"]
)
def test_no_attribute_can_be_set_or_deleted(event: Event, name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, name, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(event, name)


DICT_CHANGES: dict[str, Callable[[Any], object]] = {
    "d[k] =": lambda d: d.__setitem__("k", 1),
    "del d[k]": lambda d: d.__delitem__("k"),
    "|=": lambda d: d.__ior__({"k": 1}),
    "clear": lambda d: d.clear(),
    "pop": lambda d: d.pop("k"),
    "pop with default": lambda d: d.pop("k", None),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("k", 1),
    "update": lambda d: d.update(k=1),
}
LIST_CHANGES: dict[str, Callable[[Any], object]] = {
    "l[0] =": lambda li: li.__setitem__(0, 1),
    "l[:] =": lambda li: li.__setitem__(slice(None), []),
    "del l[0]": lambda li: li.__delitem__(0),
    "+=": lambda li: li.__iadd__([1]),
    "*=": lambda li: li.__imul__(2),
    "append": lambda li: li.append(1),
    "extend": lambda li: li.extend([1]),
    "insert": lambda li: li.insert(0, 1),
    "remove": lambda li: li.remove("a"),
    "pop": lambda li: li.pop(),
    "clear": lambda li: li.clear(),
    "reverse": lambda li: li.reverse(),
    "sort": lambda li: li.sort(),
}


@pytest.mark.parametrize("name", DICT_CHANGES)
def test_no_object_in_it_can_be_changed(event: Event, name: str) -> None:
    for target in (event.data, event.metadata, event.data["error"], handed_empty().data):
        before = json.dumps(target)
        with pytest.raises(TypeError, match="cannot be changed"):
            DICT_CHANGES[name](target)
        assert json.dumps(target) == before


@pytest.mark.parametrize("name", LIST_CHANGES)
def test_no_list_in_it_can_be_changed(event: Event, name: str) -> None:
    for target in (event.metadata["tags"], event.data["metadata"]["tags"]):
        with pytest.raises(TypeError, match="cannot be changed"):
            LIST_CHANGES[name](target)
        assert target == ["a", "b"]


def handed_empty() -> Event:
    return handed(incoming(envelope(data=None)))


def test_nothing_can_be_hung_on_it(event: Event) -> None:
    for target in (event.data, event.metadata, event.metadata["tags"]):
        with pytest.raises(AttributeError):
            target.note = 1  # type: ignore[attr-defined]


def test_it_looks_like_ordinary_json(event: Event) -> None:
    assert isinstance(event.data, dict)
    assert isinstance(event.metadata["tags"], list)
    assert event.data == FAILED
    assert json.loads(json.dumps(event.data)) == FAILED


def change(copied: Any) -> None:
    copied["metadata"]["tags"].append("c")
    copied["metadata"]["new"] = {}
    copied["error"].clear()
    del copied["to"]


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))]
)
def test_a_copy_is_ordinary_all_the_way_down(event: Event, duplicate: Callable[[Any], Any]) -> None:
    copied = duplicate(event.data)
    assert copied == FAILED
    assert type(copied) is type(copied["metadata"]) is dict
    assert type(copied["metadata"]["tags"]) is list
    change(copied)
    assert event.data == FAILED


def test_a_shallow_copy_is_ordinary_too(event: Event) -> None:
    for copied in (copy.copy(event.data), dict(event.data), event.data | {}):
        assert type(copied) is dict
        copied["to"] = None
    tags = copy.copy(event.metadata["tags"])
    assert type(tags) is list
    tags.append("c")
    assert event.data == FAILED


def test_threads_may_share_it(event: Event) -> None:
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(event.data)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [FAILED] * 8


def test_a_number_too_big_for_python_is_no_text() -> None:
    """It stays exact in `data`, but it is no type, and an id only if it is whole."""
    huge = "9" * 5_000
    with pytest.raises(Unusable, match="no string `event`"):
        parse(b'{"event": 1e999}', received_at=times.now(), retention=90 * times.DAY)
    body = f'{{"event": "sms.sent", "event_id": 1e999, "data": {{"message_id": {huge}}}}}'.encode()
    item = parse(body, received_at=times.now(), retention=90 * times.DAY)
    assert item.id.startswith("sha256:")
    assert item.message_id == clean_id(huge)
