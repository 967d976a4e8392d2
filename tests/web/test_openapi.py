"""`/v1` against docs/openapi.yaml, and against what a program expects that knows only ZimSend."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import settings
from schemathesis.core.failures import Failure
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from werkzeug.test import TestResponse

import receiver.mirror
import receiver.web.v1.messages
from app import create_app
from receiver import status, times
from receiver.parts import Receiver
from receiver.times import DAY, HOUR
from tests.conftest import SECRET, Provider, new_database
from tests.payloads import body_of
from tests.server import ROOT

pytestmark = pytest.mark.each_engine

KEY = {"X-API-Key": "zs_test_0123"}
CLIENT = {"X-Client-ID": "client_0123"}
BOTH = KEY | CLIENT
CREDENTIALS = {"ZIMSEND_API_KEY": KEY["X-API-Key"], "ZIMSEND_CLIENT_ID": CLIENT["X-Client-ID"]}

STATUS = "/v1/sms/status/{message_id}"
HISTORY = "/v1/sms/history"
STATS = "/v1/sms/stats"

#: The service's clock: 2026-11-20, 11:00. It stands still, so that each run answers the same.
NOW = 20_777 * DAY + 11 * HOUR


# --- the messages that are asked for


def report(kind: str, message_id: str, before: int, **changes: Any) -> bytes:
    """An event with all that ZimSend documents for it.

    :param before: hours before `NOW`.
    """
    time = times.iso(NOW - before * HOUR)
    data = {
        "message_id": message_id,
        "to": "+33612345678",
        "message": "Bonjour, votre code est 1234",
        "device_id": "dev_1",
        "metadata": {"order": 17, "tags": ["a", "b"]},
        "priority": 3,
        f"{status.STATE_OF_TYPE[kind]}_at": time,
    }
    return body_of(kind, data | changes, timestamp=time)


#: What is reported of a message, and how many hours before `NOW` it happened.
STORIES: dict[str, dict[str, int]] = {
    "queued": {"sms.queued": 4},
    "processing": {"sms.queued": 4, "sms.processing": 3},
    "sent": {"sms.queued": 4, "sms.sent": 2},
    "delivered": {"sms.queued": 4, "sms.sent": 2, "sms.delivered": 1},
    "failed": {"sms.queued": 4, "sms.failed": 1},
    "expired": {"sms.queued": 4, "sms.expired": 1},
    "cancelled": {"sms.queued": 4, "sms.cancelled": 1},
    "resent": {"sms.sent": 4, "sms.failed": 3, "sms.queued": 2},
}
DAYS = 4
REASON = {"code": "NO_CREDIT", "message": "No credit left"}
STORY_MESSAGES = {
    f"msg_{story}_{day}": {"expired": "failed", "resent": "queued"}.get(story, story)
    for story in STORIES
    for day in range(DAYS)
}

#: What a signed body may hold as well; each is a message that was sent.
ODD: dict[str, dict[str, Any]] = {
    "emoji": {"message": "👋🏽 👨‍👩‍👧", "metadata": {"👋": ["🏽"]}},
    "NUL": {"message": "a\0b", "metadata": {"\0": "\0"}, "device_id": "dev\0"},
    "half of a surrogate pair": {"message": "\ud83d", "metadata": {"\udc4b": "\ud83d"}},
    "right to left": {"message": "שלום \u202eמרחבא", "to": "\u200f+33612345678"},
    "long": {"message": "x" * 10_000, "metadata": {"x" * 1_000: ["x"] * 1_000}},
    "empty": {"message": "", "metadata": {}, "to": "", "device_id": ""},
    "markup": {"message": "<b>\"';--%_\\", "to": "ZimSend"},
    "huge numbers": {"metadata": {"n": [10**400, 1e308, -0.0]}, "priority": 10**400},
    "a word": {"priority": "high"},
    "wrong types": {
        "to": 33612345678,
        "message": ["a"],
        "device_id": {},
        "metadata": "a",
        "priority": 1.5,
        "sent_at": 5,
    },
    "all null": dict.fromkeys(("to", "message", "device_id", "metadata", "priority")),
}
ODD_IDS = (
    "with/slash",
    "with space",
    "+?#&%25",
    "é👋",
    "tab\t",
    "x" * 300,
    "slash/",
    "/leading",
    "line\nbreak",
)
#: Failures, by the forms in which the reason comes; and the reason.
REASONS: dict[str, tuple[Any, dict[str, str | None] | None]] = {
    "object": (REASON, REASON),
    "code": ("NO_CREDIT", {"code": "NO_CREDIT", "message": None}),
    "text": ("no credit left", {"code": None, "message": "no credit left"}),
    "printed object": ('{"code": "NO_CREDIT"}', {"code": "NO_CREDIT", "message": None}),
    "none": (None, None),
    "odd": ({"code": 5, "message": "\ud83d\0"}, {"code": None, "message": "\ufffd\0"}),
}
#: Nothing in it tells when: `sms.sent` without any time, and with nothing but an id.
TIMELESS, BARE = "msg_timeless", "msg_bare"
#: The one that the description shows.
EXAMPLE = "msg_7f3k2"


def reports() -> list[bytes]:
    bodies = [
        report(
            kind,
            f"msg_{story}_{day}",
            day * 24 + hours,
            device_id=f"dev_{day % 2 + 1}",
            **({"error": REASON} if kind == "sms.failed" else {}),
        )
        for story, events in STORIES.items()
        for day in range(DAYS)
        for kind, hours in events.items()
    ]
    bodies += [report("sms.sent", f"msg_{name}", 5, **changes) for name, changes in ODD.items()]
    bodies += [report("sms.sent", message_id, 5) for message_id in (*ODD_IDS, EXAMPLE)]
    bodies += [
        report("sms.failed", f"msg_reason_{form}", 5, error=error)
        for form, (error, _) in REASONS.items()
    ]
    bodies.append(body_of("sms.sent", {"message_id": TIMELESS, "message": "Bonjour"}))
    bodies.append(body_of("sms.sent", {"message_id": BARE}))
    return bodies


MESSAGES = (
    *STORY_MESSAGES,
    *(f"msg_{name}" for name in ODD),
    *ODD_IDS,
    EXAMPLE,
    *(f"msg_reason_{form}" for form in REASONS),
    TIMELESS,
    BARE,
)


def start(database_url: str, **environ: str) -> Flask:
    return create_app(
        {
            "ZIMSEND_WEBHOOK_SECRET": SECRET,
            "DATABASE_URL": database_url,
            "HANDLERS": "tests.handlers",
            "ZIMSEND_API_URL": "http://127.0.0.1:9/v1",  # nobody is there
            **environ,
        },
        lambda: NOW,
    )


@pytest.fixture(scope="module")
def service(
    engine: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    """A service that knows all the messages; of half of them the search index does not know."""
    with new_database(engine, request, tmp_path_factory.mktemp("openapi")) as url:
        app = start(url, **CREDENTIALS)
        parts: Receiver = app.extensions["receiver"]
        parts.store.migrate()
        provider = Provider(app.test_client())
        bodies = reports()
        random.Random(1).shuffle(bodies)  # the mirror is the same in any order
        for number, body in enumerate(bodies):
            assert provider.post(body).status_code == 200
            if number == len(bodies) // 2:
                while parts.store.index_texts(1):
                    pass
        yield app
        parts.store.close()


@pytest.fixture(scope="module")
def client(service: Flask) -> FlaskClient:
    return service.test_client()


# --- the description


def load() -> schemathesis.BaseSchema:
    api = schemathesis.openapi.from_path(ROOT / "docs/openapi.yaml", config=schemathesis.Config())
    # The headers are given with each call; they are tried apart, below.
    api.config.generation.update(deterministic=True, with_security_parameters=False)
    return api


API = load()
DESCRIPTION: dict[str, Any] = API.raw_schema
SCHEMAS: dict[str, Any] = DESCRIPTION["components"]["schemas"]


def test_it_is_a_valid_description() -> None:
    API.validate()


def test_it_lists_the_routes_that_there_are(service: Flask) -> None:
    described = {
        (path, method.upper()) for path, item in DESCRIPTION["paths"].items() for method in item
    }
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in service.url_map.iter_rules()
        if rule.rule.startswith("/v1")
        for method in (rule.methods or set()) - {"HEAD"}  # comes with each GET
    }
    assert described == routes


def objects(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of our own in a schema, with the place where it stands."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield path, schema
        for key, value in schema.items():
            yield from objects(value, f"{path}/{key}")


OBJECTS = dict(objects(SCHEMAS))


@pytest.mark.parametrize("place", OBJECTS)
def test_each_object_is_closed_and_whole_and_explained(place: str) -> None:
    schema = OBJECTS[place]
    assert set(schema["required"]) == set(schema["properties"])
    if place != "/MessageFields":  # two others are built on it
        closed = {schema.get(f"{kind}Properties") for kind in ("additional", "unevaluated")}
        assert closed == {False, None}
    for name, described in schema["properties"].items():
        assert {"description", "$ref"} & described.keys(), name


def codes_of(answer: dict[str, Any]) -> list[str]:
    schema = answer["content"]["application/json"]["schema"]
    codes: list[str] = schema["properties"]["error"]["properties"]["code"]["enum"]
    return codes


def test_it_lists_each_code_once_and_with_its_answer() -> None:
    listed = SCHEMAS["Error"]["properties"]["error"]["properties"]["code"]["enum"]
    responses = DESCRIPTION["components"]["responses"]
    # What ZimSend answers itself, it may say in its own words.
    answers = [responses[name] for name in responses if not name.startswith("Passed")]
    assert set(listed) == {code for answer in answers for code in codes_of(answer)}
    assert len(listed) == len(set(listed))
    assert SCHEMAS["Status"]["enum"] == list(status.STATES)


# --- the service does what the description says


def is_backwards(query: Any) -> bool:
    """Whether the period ends before it begins: the one rule that the description cannot say."""
    since, until = (times.parse(query.get(name)) for name in ("from_date", "to_date"))
    return since is not None and until is not None and since > until


@API.exclude(tag="gateway").parametrize()
@settings(max_examples=100, derandomize=True, deadline=None)
def test_any_request_is_answered_as_described(case: schemathesis.Case, service: Flask) -> None:
    excluded = [ignored_auth]  # it takes no 400, with which ZimSend answers missing headers
    if is_backwards(case.query):
        excluded.append(positive_data_acceptance)
    case.call_and_validate(app=service, headers=BOTH, excluded_checks=excluded)


def get(client: FlaskClient, path: str, message_id: str = "", **query: Any) -> Any:
    """What is answered to the holder of the right headers, held to the description."""
    url = path.replace("{message_id}", quote(message_id, safe=""))
    response = client.get(url, query_string=query or None, headers=BOTH)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    API[path.partition("?")[0]]["GET"].validate_response(response)
    return response.get_json()


@pytest.mark.parametrize("message_id", MESSAGES, ids=lambda value: ascii(value)[:30])
def test_each_message_is_as_described(client: FlaskClient, message_id: str) -> None:
    told = get(client, STATUS, message_id)
    assert told["events_total"] == len(told["events"])
    (listed,) = [m for m in pages(client) if m["message_id"] == told["message_id"]]
    assert listed == {name: told[name] for name in listed}


def pages(client: FlaskClient, **query: Any) -> list[dict[str, Any]]:
    """The messages of all pages."""
    found: list[dict[str, Any]] = []
    page = 1
    while answer := get(client, HISTORY, page=page, limit=25, **query):
        found += answer["data"]
        if page >= answer["pagination"]["total_pages"]:
            break
        page += 1
    return found


FILTERS: dict[str, dict[str, Any]] = {
    **{state: {"status": state} for state in status.STATES},
    "number": {"to": "+33612345678"},
    "name": {"to": "zimsend"},
    "device": {"device_id": "dev_2"},
    "odd device": {"device_id": "dev\0"},
    "text": {"search": "CODE"},
    "two letters": {"search": "co"},
    "long text": {"search": "x" * 2_000},
    "emoji": {"search": "👋"},
    "NUL": {"search": "a\0b"},
    "day": {"from_date": "2026-11-19", "to_date": "2026-11-19"},
    "all": {
        "status": "delivered",
        "to": "0033 6 12 34 56 78",
        "device_id": "dev_2",
        "from_date": "2026-11-19",
        "to_date": "2026-11-20T12:00:00+01:00",
        "search": "bonjour",
    },
}


@pytest.mark.parametrize("query", FILTERS.values(), ids=FILTERS)
def test_each_selection_is_as_described(client: FlaskClient, query: dict[str, Any]) -> None:
    everything = {message["message_id"] for message in pages(client)}
    selected = {message["message_id"] for message in pages(client, **query)}
    assert selected
    assert selected < everything


@pytest.mark.parametrize(
    "query", [{}, {"device_id": "dev_1"}, {"from_date": "2026-11-19", "to_date": "2026-11-19"}]
)
def test_each_statistic_is_as_described(client: FlaskClient, query: dict[str, Any]) -> None:
    told = get(client, STATS, **query)
    assert told["period"] == {"from": query.get("from_date"), "to": query.get("to_date")}
    assert told["stats"]["by_day"]


def with_one_more(told: dict[str, Any]) -> dict[str, Any]:
    return told | {"new": 1}


def with_one_less(told: dict[str, Any]) -> dict[str, Any]:
    return dict(list(told.items())[1:])


@pytest.mark.parametrize(
    ("path", "module", "function"),
    [
        (STATUS, receiver.web.v1.messages, "_message"),
        (f"{HISTORY}?limit=1", receiver.web.v1.messages, "_message"),
        (STATS, receiver.mirror, "statistics"),
    ],
)
@pytest.mark.parametrize("changed", [with_one_more, with_one_less])
def test_a_field_that_is_new_or_lost_would_be_noticed(
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    module: Any,
    function: str,
    changed: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    honest = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *arguments: changed(honest(*arguments)))
    with pytest.raises(Failure, match="Response violates schema"):
        get(client, path, EXAMPLE)


# --- a client that knows only ZimSend's documents

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
    }


# --- forms of a parameter

#: Queries that ask the same, as they stand in a URL.
ALIKE = [
    ("page=&limit=&status=&to=&from_date=&to_date=&device_id=&search=", ""),
    ("unknown=1", ""),
    ("page=1&page=2", "page=1"),
    ("page=0001&limit=5000", "limit=100"),
    ("to=%2B33612345678", "to=0033%20(6)%2012-34-56-78"),
    ("to=%2B33612345678", "to=+33612345678"),
    ("to=ZimSend", "to=ZIMSEND"),
    ("search=votre%20CODE", "search=Vôtre+code"),
    ("from_date=2026-11-19", "from_date=2026-11-19T00:00:00Z"),
    ("from_date=2026-11-19", "from_date=20261119"),
    ("to_date=2026-11-19", "to_date=2026-11-19T23:59:59.999999Z"),
    ("to_date=2026-11-19T08:00:00", "to_date=2026-11-19T08:00:00Z"),
    ("to_date=2026-11-19T10:00:00%2B02:00", "to_date=2026-11-19T08:00:00.000Z"),
    ("to_date=2026-11-19T10:00:00+02:00", "to_date=2026-11-19T08:00Z"),
    ("to_date=2026-11-19%2008:00", "to_date=2026-11-19t08:00:00z"),
]


@pytest.mark.parametrize(("query", "other"), ALIKE)
def test_forms_of_a_parameter(client: FlaskClient, query: str, other: str) -> None:
    one, two = (get(client, f"{HISTORY}?{text}") for text in (query, other))
    assert one == two
    assert one["data"]
    one, two = (get(client, f"{STATS}?{text}")["stats"] for text in (query, other))
    assert one == two


def test_both_bounds_belong_to_the_period(client: FlaskClient) -> None:
    moment = get(client, STATUS, "msg_delivered_1")["sent_at"]
    assert moment == "2026-11-19T09:00:00Z"
    within = get(client, HISTORY, from_date=moment, to_date=moment)["data"]
    assert "msg_delivered_1" in [message["message_id"] for message in within]
    assert {message["sent_at"] for message in within} == {moment}


BAD = [
    *(f"page={quote(text)}" for text in ("0", "-1", "1.0", "one", "٣", " 1", "1" + "0" * 15)),
    *(f"limit={quote(text)}" for text in ("0", "-1", "ten", "1e1", "0x10")),
    *(f"status={text}" for text in ("Delivered", "unknown", "sent,failed", "null")),
]
BAD_PERIODS = [
    f"{name}={text}"
    for name in ("from_date", "to_date")
    for text in ("yesterday", "2026-13-01", "2026-11-31", "20", "0", "2026-11-19T25:00Z", "2" * 65)
]


@pytest.mark.parametrize("query", [*BAD, *BAD_PERIODS])
def test_wrong_parameters(client: FlaskClient, query: str) -> None:
    for path in (HISTORY, STATS) if query in BAD_PERIODS else (HISTORY,):
        response = client.get(f"{path}?{query}", headers=BOTH)
        message = refusal(response, 400, "INVALID_PARAMETER", path)
        assert message.startswith(query.partition("=")[0])


def test_a_number_of_blanks_is_not_everybody(client: FlaskClient) -> None:
    """Whose variable is empty after the `+` does not get the messages of all."""
    for query in ("to=+", "to=%20"):
        response = client.get(f"{HISTORY}?{query}", headers=BOTH)
        assert refusal(response, 400, "INVALID_PHONE_NUMBER", HISTORY).startswith("to ")


@pytest.mark.parametrize("path", [HISTORY, STATS])
def test_a_period_that_ends_before_it_begins(client: FlaskClient, path: str) -> None:
    response = client.get(f"{path}?from_date=2026-11-20&to_date=2026-11-19", headers=BOTH)
    message = refusal(response, 400, "INVALID_PARAMETER", path)
    assert "from_date" in message
    assert "to_date" in message


# --- errors


def refusal(response: TestResponse, code: int, name: str, path: str | None = None) -> str:
    """The message of an error that has ZimSend's shape and that the description knows."""
    assert response.status_code == code
    assert response.content_type == "application/json"
    body = response.get_json()
    assert body.keys() == {"success", "error"}
    assert body["success"] is False
    assert body["error"].keys() == {"code", "message"}
    assert body["error"]["code"] == name
    message: str = body["error"]["message"]
    assert message
    if path is not None:
        assert str(code) in DESCRIPTION["paths"][path]["get"]["responses"]
        API[path]["GET"].validate_response(response)
    return message


#: Each described path as it is called, and paths that do not exist.
CALLS: dict[str, str | None] = {
    f"/v1/sms/status/{EXAMPLE}": STATUS,
    HISTORY: HISTORY,
    STATS: STATS,
    "/v1": None,
    "/v1/": None,
    "/v1/sms/status/": None,
    "/v1/nothing": None,
    f"{HISTORY}/": None,
}
METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")

REFUSED: list[tuple[dict[str, str], int, str]] = [
    ({}, 400, "MISSING_AUTH_HEADERS"),
    (KEY, 400, "MISSING_AUTH_HEADERS"),
    (CLIENT, 400, "MISSING_AUTH_HEADERS"),
    (BOTH | {"X-API-Key": ""}, 400, "MISSING_AUTH_HEADERS"),
    (BOTH | {"X-Client-ID": ""}, 400, "MISSING_AUTH_HEADERS"),
    (BOTH | {"X-API-Key": "zs_test_wrong"}, 401, "INVALID_API_KEY"),
    (BOTH | {"X-API-Key": "clé"}, 401, "INVALID_API_KEY"),
    (BOTH | {"X-Client-ID": "client_wrong"}, 401, "INVALID_CLIENT_ID"),
    (BOTH | {"X-Client-ID": KEY["X-API-Key"]}, 401, "INVALID_CLIENT_ID"),
    ({"X-API-Key": "a", "X-Client-ID": "b"}, 401, "INVALID_API_KEY"),
]


@pytest.mark.parametrize("url", CALLS)
@pytest.mark.parametrize(("headers", "code", "name"), REFUSED)
def test_without_the_right_headers(
    client: FlaskClient, url: str, headers: dict[str, str], code: int, name: str
) -> None:
    refusal(client.get(url, headers=headers), code, name, CALLS[url])
    refusal(client.post(url, headers=headers), code, name)


def test_it_takes_the_header_names_in_any_case(client: FlaskClient) -> None:
    headers = {name.upper(): value for name, value in BOTH.items()}
    assert client.get(STATS, headers=headers).status_code == 200


CLOSED: list[dict[str, str]] = [
    {},
    *({name: value} for name, value in CREDENTIALS.items()),
    *({**CREDENTIALS, name: " "} for name in CREDENTIALS),
]


@pytest.mark.parametrize("environ", CLOSED)
@pytest.mark.parametrize("headers", [{}, BOTH], ids=["no headers", "headers"])
def test_it_is_closed_where_nothing_is_configured(
    tmp_path: Path, environ: dict[str, str], headers: dict[str, str]
) -> None:
    client = start(f"sqlite:///{tmp_path / 'receiver.db'}", **environ).test_client()
    for url, path in CALLS.items():
        message = refusal(client.get(url, headers=headers), 503, "NOT_CONFIGURED", path)
        assert all(name in message for name in CREDENTIALS)
        refusal(client.post(url, headers=headers), 503, "NOT_CONFIGURED")


@pytest.mark.parametrize("path", [STATUS, HISTORY, STATS])
def test_the_database_cannot_be_used(empty_database_url: str, path: str) -> None:
    app = start(empty_database_url, **CREDENTIALS)  # its tables were never made
    client = app.test_client()
    response = client.get(path.format(message_id=EXAMPLE), headers=BOTH)
    refusal(response, 503, "SERVICE_UNAVAILABLE", path)
    assert int(response.headers["Retry-After"]) > 0
    app.extensions["receiver"].store.close()


@pytest.mark.parametrize("message_id", ["unknown", "msg_sent", "y" * 300, "%00", "%F0", "a/b"])
def test_a_message_that_is_not_known(client: FlaskClient, message_id: str) -> None:
    response = client.get(f"/v1/sms/status/{message_id}", headers=BOTH)
    refusal(response, 404, "MESSAGE_NOT_FOUND", STATUS)


@pytest.mark.parametrize("url", [url for url, path in CALLS.items() if path is None])
def test_a_path_that_does_not_exist(client: FlaskClient, url: str) -> None:
    refusal(client.get(url, headers=BOTH), 404, "NOT_FOUND")
    refusal(client.post(url, headers=BOTH), 404, "NOT_FOUND")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("url", [url for url, path in CALLS.items() if path is not None])
def test_a_method_that_is_not_answered(client: FlaskClient, url: str, method: str) -> None:
    response = client.open(url, method=method, headers=BOTH)
    refusal(response, 405, "METHOD_NOT_ALLOWED", CALLS[url])
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("url", [url for url, path in CALLS.items() if path is not None])
def test_the_head_of_an_answer(client: FlaskClient, url: str) -> None:
    whole, head = (client.open(url, method=method, headers=BOTH) for method in ("GET", "HEAD"))
    assert head.status_code == 200
    assert head.headers == whole.headers
    assert head.data == b""
