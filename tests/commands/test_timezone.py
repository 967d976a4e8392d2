"""TIMEZONE: in which zone commands show times, and what days and words mean there."""

from __future__ import annotations

import json
import zoneinfo
from collections.abc import Iterator

import pytest
from flask.testing import FlaskCliRunner

from app import create_app
from receiver import times
from receiver.parts import Receiver
from tests.conftest import Clock, Provider


def at(text: str) -> int:
    moment = times.parse(text)
    assert moment is not None
    return moment


class There:
    """A receiver in some zone, in which events came in at these moments."""

    def __init__(self, environ: dict[str, str], zone: str, *moments: str, now: str) -> None:
        clock = Clock()
        app = create_app(environ | {"TIMEZONE": zone}, clock)
        self.receiver: Receiver = app.extensions["receiver"]
        self.receiver.store.migrate()
        self.runner: FlaskCliRunner = app.test_cli_runner()
        for moment in moments:
            clock.time = at(moment)
            provider = Provider(app.test_client())
            assert provider.post({"event": "device.tick", "event_id": moment}).status_code == 200
        clock.time = at(now)

    def found(self, *options: str) -> list[str]:
        ran = self.runner.invoke(args=["events", "list", "--format", "jsonl", *options])
        assert ran.exit_code == 0, ran.output
        return [json.loads(line)["event_id"] for line in ran.stdout.splitlines()]


#: 2026-11-20 in Paris (+01:00), its first and last moment and those next to it.
NIGHT = (
    "2026-11-19T22:59:59.999999Z",
    "2026-11-19T23:00:00Z",
    "2026-11-20T22:59:59.999999Z",
    "2026-11-20T23:00:00Z",
)


@pytest.fixture(scope="module")
def paris(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    environ = {
        "ZIMSEND_WEBHOOK_SECRET": "whsec_0123456789abcdef0123456789abcdef",
        "DATABASE_URL": f"sqlite:///{tmp_path_factory.mktemp('paris')}/receiver.db",
    }
    # It is the 21st there, and still the 20th in UTC.
    there = There(environ, "Europe/Paris", *NIGHT, now="2026-11-20T23:30:00Z")
    yield there
    there.receiver.store.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--since", "2026-11-20"], NIGHT[1:]),
        (["--until", "2026-11-20"], NIGHT[:3]),
        (["--since", "2026-11-20", "--until", "2026-11-20"], NIGHT[1:3]),
        (["--since", "2026-W47-5", "--until", "2026-W47-5"], NIGHT[1:3]),
        (["--since", "yesterday", "--until", "yesterday"], NIGHT[1:3]),
        (["--since", "today"], NIGHT[3:]),
        (["--until", "today"], NIGHT),
        (["--since", "2026-11-20T00:00"], NIGHT[1:]),
        (["--until", "2026-11-20 00:00:00"], NIGHT[:2]),
        (["--since", "2026-11-20T00:00Z"], NIGHT[2:]),
        (["--since", "2026-11-20T00:00:00.000001+01:00"], NIGHT[2:]),
        (["--since", "1h"], NIGHT[2:]),
        (["--since", "30m"], NIGHT[3:]),
    ],
)
def test_days_are_those_of_the_zone(
    paris: There, options: list[str], expected: tuple[str, ...]
) -> None:
    assert paris.found(*options) == list(expected)


def test_tables_show_that_zone_and_programs_get_utc(paris: There) -> None:
    table = paris.runner.invoke(args=["events", "list", "--since", "today"]).stdout.splitlines()
    shown = table[1].split()[0]
    assert shown == "2026-11-21T00:00:00+01:00"
    assert table[0].index("TYPE") == table[1].index("device.tick")
    assert paris.found("--since", shown) == [NIGHT[3]]
    fine = paris.runner.invoke(args=["events", "list", "--until", "yesterday"]).stdout
    assert "2026-11-20T23:59:59.999999+01:00" in fine
    for line in paris.runner.invoke(args=["events", "list", "--format", "jsonl"]).stdout.split():
        assert "+01:00" not in line
    shown_event = paris.runner.invoke(args=["events", "show", NIGHT[3]]).stdout
    assert json.loads(shown_event)["received_at"] == NIGHT[3]


def test_a_day_may_have_another_length(environ: dict[str, str]) -> None:
    """Clocks went forward on 2027-03-28 in Paris, so that day had 23 hours."""
    edges = ("2027-03-27T23:00:00Z", "2027-03-28T21:59:59Z", "2027-03-28T22:00:00Z")
    there = There(environ, "Europe/Paris", *edges, now="2027-03-29T09:00:00Z")
    assert there.found("--since", "yesterday", "--until", "yesterday") == list(edges[:2])
    there.receiver.store.close()


def test_the_default_is_utc(environ: dict[str, str]) -> None:
    there = There(environ, "", *NIGHT, now="2026-11-20T23:30:00Z")
    assert there.found("--since", "today") == list(NIGHT[2:])
    assert there.found("--until", "yesterday") == list(NIGHT[:2])
    table = there.runner.invoke(args=["events", "list"]).stdout
    assert all(moment in table for moment in NIGHT)
    there.receiver.store.close()


@pytest.mark.parametrize("text", ["tomorrow", "20261120", "1795162542", "2026-13-01", "Today "])
def test_what_is_no_time_is_wrong_usage(paris: There, text: str) -> None:
    ran = paris.runner.invoke(args=["events", "list", "--since", text])
    assert ran.exit_code == 2
    assert "today, yesterday" in ran.output


@pytest.mark.parametrize(
    ("option", "text"),
    [("--until", "9999-12-31"), ("--since", "0001-01-01"), ("--since", "999999999d")],
)
def test_years_beyond_the_calendar_are_wrong_usage(paris: There, option: str, text: str) -> None:
    ran = paris.runner.invoke(args=["events", "list", option, text])
    assert ran.exit_code == 2
    assert "years 1 to 9999" in ran.output


def test_zones_are_there_where_the_system_has_none() -> None:
    """Debian's slim images have none; the package `tzdata` does."""
    zoneinfo.reset_tzpath(to=[])
    try:
        assert zoneinfo.ZoneInfo.no_cache("Europe/Paris").key == "Europe/Paris"
    finally:
        zoneinfo.reset_tzpath()
