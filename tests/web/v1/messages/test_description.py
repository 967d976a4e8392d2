"""docs/reference/openapi.yaml, and that `/v1` does what it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import settings
from schemathesis.core.failures import Failure
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

import receiver.mirror
import receiver.web.v1.messages
from receiver import status, times
from tests.web.v1.messages.known import BOTH, EXAMPLE, HISTORY, MESSAGES, STATS, STATUS, get
from tests.web.v1.openapi import API, DESCRIPTION, SCHEMAS

pytestmark = pytest.mark.each_engine


# --- the description


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
