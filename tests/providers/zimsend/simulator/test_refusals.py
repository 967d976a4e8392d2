"""What the API refuses, and that nothing that anybody asks breaks it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.times import DAY, HOUR, MINUTE, iso
from tests.providers.zimsend.simulator.asking import Api, shape
from tests.providers.zimsend.simulator.worlds import BEGAN, HOOK, NUMBER, hooked, only


def test_who_is_let_in(api: Api) -> None:
    body = {"to": NUMBER, "message": "Bonjour"}
    headers = api.headers
    for some, code, status in (
        ({}, "MISSING_AUTH_HEADERS", 400),
        ({"X-API-Key": "zs_test_1"}, "MISSING_AUTH_HEADERS", 400),
        ({"X-Client-ID": "client_1"}, "MISSING_AUTH_HEADERS", 400),
        ({**headers, "X-API-Key": "zs_test_2"}, "INVALID_API_KEY", 401),
        ({**headers, "X-Client-ID": "client_2"}, "INVALID_CLIENT_ID", 401),
        ({**headers, "X-Client-ID": "é"}, "INVALID_CLIENT_ID", 401),
    ):
        api.headers = some
        assert api.refused("POST", "/sms/send", body, status=status) == code
    assert not api.world.messages
    assert api.simulated.requests == 0


def test_a_hundred_requests_in_a_simulated_minute(api: Api) -> None:
    for _ in range(100):
        api("GET", "/webhooks")
    assert api.refused("GET", "/webhooks", status=429) == "RATE_LIMIT_EXCEEDED"
    api.wait(MINUTE - 1)
    assert api.refused("GET", "/webhooks", status=429) == "RATE_LIMIT_EXCEEDED"
    api.wait(1)
    for _ in range(100):
        api("GET", "/webhooks")
    assert api.refused("POST", "/sms/send", {}, status=429) == "RATE_LIMIT_EXCEEDED"
    told = json.loads(api.client.get("/truth").data)
    assert told["api"] == {"requests": 203, "limited": 3}
    assert told["simulator"] == "not ZimSend"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"message": "x" * 1601}, "MESSAGE_TOO_LONG"),
        ({"to": "123"}, "INVALID_PHONE_NUMBER"),
        ({"to": ""}, "INVALID_PHONE_NUMBER"),
        ({"to": "+33612345678\n"}, "INVALID_PHONE_NUMBER"),
        ({"to": "+３３６１２３４５６７８"}, "INVALID_PHONE_NUMBER"),
        ({"priority": 0}, "INVALID_PRIORITY"),
        ({"priority": 6}, "INVALID_PRIORITY"),
        ({"priority": "urgent"}, "INVALID_PRIORITY"),
        ({"scheduled_at": iso(BEGAN - 1)}, "INVALID_SCHEDULED_DATE"),
        ({"scheduled_at": iso(BEGAN + 30 * DAY + 1)}, "INVALID_SCHEDULED_DATE"),
        ({"scheduled_at": "tomorrow"}, "INVALID_SCHEDULED_DATE"),
        ({"webhook_url": "example.org"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "ftp://example.org/"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "http://example.org/\n"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "http://"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "http:///path"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "http://example.org:99999/"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "http://\ud800.org/"}, "INVALID_WEBHOOK_URL"),
        ({"metadata": {"text": "x" * 1024}}, "INVALID_PARAMETER"),
        ({"retry_attempts": 6}, "INVALID_PARAMETER"),
    ],
)
def test_what_a_send_is_refused_for(api: Api, fields: dict[str, Any], code: str) -> None:
    body = {"to": NUMBER, "message": "Bonjour", **fields}
    assert api.refused("POST", "/sms/send", body) == code
    assert not api.world.messages


def test_the_largest_that_is_taken(api: Api) -> None:
    metadata = {"text": "é" * 506}  # 1 KB
    api.send(message="é" * 1600, scheduled_at=iso(BEGAN + 30 * DAY), metadata=metadata)
    assert only(api.world).text == "é" * 1600


#: JSON that no field takes, unless it is left out below.
ODD = [
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "1e400",
    "9" * 5000,
    '""',
    '"\\ud800"',
    "[]",
    "[[1]]",
    "{}",
]
TEXT_MAY = {'"\\ud800"'}
CALLS: dict[str, tuple[dict[str, Any], dict[str, set[str]]]] = {
    # A right body; and of each field the odd values that it may have all the same.
    "/sms/send": (
        {"to": NUMBER, "message": "x"},
        {
            "to": set(),
            "message": TEXT_MAY,
            "priority": set(),
            "webhook_url": {"null"},
            "metadata": {"null", "{}"},
            "scheduled_at": {"null"},
            "retry_attempts": {"null"},
        },
    ),
    "/sms/send-bulk": (
        {"recipients": [NUMBER], "message": "x"},
        {"recipients": set(), "message": TEXT_MAY, "priority": set(), "metadata": {"null", "{}"}},
    ),
    "/sms/send-bulk-personalized": (
        {"messages": [{"to": NUMBER, "message": "x"}]},
        {"messages": set(), "priority": set()},
    ),
    "/sms/send-otp": (
        {"to": NUMBER},
        {
            "to": set(),
            "length": {"null"},
            "expiry": {"null"},
            "template": {"null"},
            "metadata": {"null", "{}"},
        },
    ),
    "/sms/verify-otp": ({"otp_id": "otp_0_1", "code": "1"}, {"otp_id": set(), "code": set()}),
    "/webhooks/configure": (
        {"url": HOOK},
        {"url": set(), "events": {"null"}, "secret": {"null"}},
    ),
}
FIELDS = [(path, name) for path, (_, fields) in CALLS.items() for name in fields]


@pytest.mark.parametrize(("path", "name"), FIELDS)
def test_odd_values_in_a_field(api: Api, path: str, name: str) -> None:
    api("POST", "/sms/send-otp", {"to": NUMBER})
    right, fields = CALLS[path]
    before = len(api.world.messages), len(api.world.webhooks)
    for odd in (*ODD, "NaN", "-Infinity"):
        raw = json.dumps({**right, name: "ODD"}).replace('"ODD"', odd).encode()
        if odd in fields[name]:
            api("POST", path, raw)
        else:
            api.refused("POST", path, raw)
            assert (len(api.world.messages), len(api.world.webhooks)) == before
        before = len(api.world.messages), len(api.world.webhooks)
    api.wait(HOUR)
    assert api.client.get("/truth").status_code == 200


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b'"x"', b"{", b"\xff", b"[" * 100_000, b'{"to": NaN}', b"1"]
)
def test_a_body_that_is_no_object(api: Api, path: str, raw: bytes) -> None:
    assert api.refused("POST", path, raw) == "INVALID_REQUEST"


def test_a_body_that_says_it_is_no_json(api: Api) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}):
        answer = api.client.post("/v1/sms/send", data=b"x=1", headers={**api.headers, **headers})
        assert answer.status_code == 400
        assert json.loads(answer.data)["error"]["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize("path", ["/sms/history", "/webhooks/logs"])
@pytest.mark.parametrize("name", ["page", "limit"])
@pytest.mark.parametrize("odd", ["abc", "0", "-1", "1.5", "NaN", "2_0", "２", "9" * 5000, "[]"])
def test_odd_pages(api: Api, path: str, name: str, odd: str) -> None:
    assert api.refused("GET", f"{path}?{name}={odd}") == "INVALID_PARAMETER"


@pytest.mark.parametrize("path", ["/sms/history", "/sms/stats"])
@pytest.mark.parametrize("name", ["from_date", "to_date"])
@pytest.mark.parametrize("odd", ["abc", "1e9", "2026-13-01", "NaN", "9" * 5000])
def test_odd_dates(api: Api, path: str, name: str, odd: str) -> None:
    assert api.refused("GET", f"{path}?{name}={odd}") == "INVALID_PARAMETER"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/sms/nothing", 405), ("GET", "/nothing", 404), ("PUT", "/sms/send", 405)],
)
def test_a_call_that_does_not_exist(api: Api, method: str, path: str, status: int) -> None:
    api.refused(method, path, status=status)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
PLAUSIBLE = st.sampled_from(
    [
        *(NUMBER, 5, 300, "x", HOOK, iso(BEGAN + 1), "2026-11-20", "otp_0_1", 10**30),
        *([NUMBER], ["sms.sent"], {"a": 1}),
        [{"to": NUMBER, "message": "x", "priority": [1]}],
    ]
)
NAMES = sorted({name for _, name in FIELDS})


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(CALLS)),
            st.dictionaries(st.sampled_from(NAMES), PLAUSIBLE | JSON, max_size=7),
        ),
        max_size=6,
    )
)
def test_nothing_that_anybody_asks_breaks_it(calls: list[tuple[str, dict[str, Any]]]) -> None:
    api = Api(hooked(devices=2))
    for path, fields in [*calls, ("/sms/send", {"to": NUMBER, "message": "x"})]:
        answer = api.client.post(
            f"/v1{path}", json={**CALLS[path][0], **fields}, headers=api.headers
        )
        assert answer.status_code in (200, 400, 404, 429)
        told = json.loads(answer.data, parse_constant=pytest.fail)
        if answer.status_code != 200:
            assert shape(told) == {"success": bool, "error": {"code": str, "message": str}}
    api.wait(31 * DAY)
    for path in ("/v1/sms/history", "/v1/sms/stats", "/v1/webhooks", "/truth"):
        answer = api.client.get(path, headers=api.headers)
        assert answer.status_code == 200
        json.loads(answer.data, parse_constant=pytest.fail)
    api.simulated.stop()
