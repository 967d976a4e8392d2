"""Forms of a parameter, and parameters that are refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from tests.web.v1.messages.known import BOTH, HISTORY, STATS, STATUS, get, refusal

pytestmark = pytest.mark.each_engine

#: Queries that ask the same, as they stand in a URL.
ALIKE = [
    ("page=&limit=&status=&to=&from_date=&to_date=&device_id=&search=", ""),
    ("page=1&page=2", "page=1"),
    ("page=0001&limit=5000", "limit=100"),
    ("to=%2B33612345678", "to=0033%20(6)%2012-34-56-78"),
    ("to=%2B33612345678", "to=+33612345678"),
    ("to=ZimSend", "to=ZIMSEND"),
    ("provider=zimsend", "provider=ZimSend"),
    ("search=votre%20CODE", "search=Vôtre+code"),
    ("from_date=2026-11-19", "from_date=2026-11-19T00:00:00Z"),
    ("from_date=2026-11-19", "from_date=20261119T000000Z"),
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


def test_what_a_call_does_not_know_is_named(client: FlaskClient) -> None:
    """A slip like `stauts=failed` must not look like an answer to what was meant."""
    slips = {"stauts": "failed", "metadata.": "7", "Page": "1"}
    for path, message_id, known in (
        (HISTORY, "", {"page": "1", "metadata.order": "17", "error": "X", "provider": "zimsend"}),
        (STATS, "", {"from_date": "2026-11-19", "provider": "zimsend"}),
        (STATUS, "msg_sent_0", {}),
        ("/v1/reconciliation", "", {}),
    ):
        assert get(client, path, message_id, **known, **slips)["ignored"] == list(slips), path
        assert get(client, path, message_id, **known)["ignored"] == []
    assert get(client, STATUS, "msg_sent_0", page="2")["ignored"] == ["page"]


def test_history_by_error_provider_and_metadata(client: FlaskClient) -> None:
    everything = get(client, HISTORY, limit=100)["data"]

    def asked(**query: str) -> list[str]:
        return [
            message["message_id"] for message in get(client, HISTORY, limit=100, **query)["data"]
        ]

    failed = [m["message_id"] for m in everything if (m["error"] or {}).get("code") == "NO_CREDIT"]
    assert len(failed) > 2
    assert asked(error="NO_CREDIT") == failed
    assert asked(error="no_credit") == []
    assert asked(provider="zimsend") == [m["message_id"] for m in everything]
    assert asked(provider="smscx") == []
    ordered = [m["message_id"] for m in everything if (m["metadata"] or {}).get("order") == 17]
    assert len(ordered) > 2
    assert asked(**{"metadata.order": "17"}) == ordered
    assert asked(**{"metadata.order": "17", "error": "NO_CREDIT"}) == [
        name for name in failed if name in ordered
    ]
    assert asked(**{"metadata.order": "1"}) == []
    assert asked(**{"metadata.order": "1" * 256}) == []


def test_statistics_say_why(client: FlaskClient) -> None:
    stats = get(client, STATS)["stats"]
    assert sum(one["failed"] for one in stats["by_error"]) == stats["failed"]
    assert stats["by_error"][0]["code"] == "NO_CREDIT"
    nothing = get(client, f"{STATS}?provider=smscx")["stats"]
    assert (nothing["total_sent"], nothing["by_error"]) == (0, [])


def test_a_search_for_a_lone_accent_finds_nothing(client: FlaskClient) -> None:
    assert get(client, HISTORY, search="\u0301")["data"] == []


@pytest.mark.parametrize(
    "typed",
    [
        "+33 (0)6 12 34 56 78",
        "0033 (0) 612345678",
        "\uff0b\uff13\uff13\uff16\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18",  # full-width
        "+\u0663\u0663612345678",
    ],
)
def test_a_number_is_found_however_it_is_typed(client: FlaskClient, typed: str) -> None:
    expected = get(client, HISTORY, to="+33612345678")
    assert expected["data"]
    assert get(client, HISTORY, to=typed) == expected


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
NO_DATES = (
    *("yesterday", "2026-13-01", "2026-11-31", "20", "0", "2026-11-19T25:00Z", "2" * 65),
    *("20261119", "1795101512345", "1795162542", "2026-11-19-0815", "2026-11-19T24:00Z"),
)
NO_DATES = (
    *("yesterday", "2026-13-01", "2026-11-31", "20", "0", "2026-11-19T25:00Z", "2" * 65),
    *("20261119", "1795101512345", "1795162542", "2026-11-19-0815", "2026-11-19T24:00Z"),
)
BAD_OF_BOTH = [
    *(f"{name}={text}" for name in ("from_date", "to_date") for text in NO_DATES),
    *(f"provider={text}" for text in ("zimsned", "zimsend,smscx", "null", "%00")),
]


@pytest.mark.parametrize("query", [*BAD, *BAD_OF_BOTH])
def test_wrong_parameters(client: FlaskClient, query: str) -> None:
    for path in (HISTORY, STATS) if query in BAD_OF_BOTH else (HISTORY,):
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
