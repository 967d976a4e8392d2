"""Times: what counts as one, what it means, and how it is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver import times

steady = settings(derandomize=True, deadline=None, max_examples=200)

FIRST = -62_135_596_800 * times.SECOND  # 0001-01-01T00:00:00Z
LAST = 253_402_300_800 * times.SECOND - 1  # the last microsecond of the year 9999
MOMENT = 1_795_162_542 * times.SECOND  # 2026-11-20T08:15:42Z

every_time = st.integers(FIRST, LAST)


@pytest.mark.parametrize(
    ("text", "time_us"),
    {
        "2026-11-20T08:15:42Z": MOMENT,
        "2026-11-20t08:15:42z": MOMENT,
        "2026-11-20 08:15:42Z": MOMENT,
        "20261120T081542Z": MOMENT,
        "2026-11-20T08:15:42": MOMENT,  # no zone is UTC
        "2026-11-20T08:15:42+00:00": MOMENT,
        "2026-11-20T08:15:42-00:00": MOMENT,
        "2026-11-20T09:15:42+01:00": MOMENT,
        "2026-11-20T09:15:42+0100": MOMENT,
        "2026-11-20T02:45:42-05:30": MOMENT,
        "2026-11-21T08:14:42+23:59": MOMENT,
        "2026-11-20T08:15:42.5Z": MOMENT + 500_000,
        "2026-11-20T08:15:42.123Z": MOMENT + 123_000,
        "2026-11-20T08:15:42.123456Z": MOMENT + 123_456,
        "2026-11-20T08:15:42.1234569Z": MOMENT + 123_456,  # cut off, not rounded
        "2026-11-20T08:15Z": MOMENT - 42 * times.SECOND,
        "2026-11-20": MOMENT - (8 * 3_600 + 15 * 60 + 42) * times.SECOND,
        "1970-01-01T00:00:00Z": 0,
        "1969-12-31T23:59:59.999999Z": -1,
        "0001-01-01T00:00:00Z": FIRST,
        "0001-01-01T00:00:00+23:59": FIRST - (23 * 60 + 59) * times.MINUTE,
        "9999-12-31T23:59:59.999999Z": LAST,
        "9999-12-31T23:59:59.999999-23:59": LAST + (23 * 60 + 59) * times.MINUTE,
    }.items(),
)
def test_a_time_is_read(text: str, time_us: int) -> None:
    assert times.parse(text) == time_us


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
def test_where_the_machine_stands_does_not_matter() -> None:
    assert times.parse("2026-11-20T08:15:42") == MOMENT
    assert times.iso(MOMENT) == "2026-11-20T08:15:42Z"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        1_795_162_542,
        1_795_162_542.5,
        [],
        {},
        b"2026-11-20T08:15:42Z",
        "",
        " ",
        "yesterday",
        "1795162542",
        "2026",
        "20261120",
        "1795101512345",  # which has been the year 1795
        "1795101512345678",
        "2026-11-20-0815",
        "2026-11-20T24:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-11-20T25:00:00Z",
        "2026-11-20T08:60:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "9999-W53-7",
        "2026-11-20T08:15:42+24:00",
        "2026-11-20T08:15:42Z ",
        "2026-11-20x08:15:42",
        "2026-11-20+02:00",  # a date's zone is not a time
        "2026-11-20T08:15:42Z\n",
        "2026-11-20T08:15:42\ud800",
        "２０２６-11-20T08:15:42Z",
        "2026-11-20T08:15:42." + "1" * 100 + "Z",
        "2026-11-20T08:15:42Z" * 10_000,
    ],
)
def test_anything_else_is_no_time(value: Any) -> None:
    assert times.parse(value) is None


# --- as programs send them

SENT_SO = {
    "2026-11-20T08:15:42Z": MOMENT,
    "2026-11-20T08:14:60Z": MOMENT - 42 * times.SECOND,
    "2026-11-20T23:59:60.5Z": MOMENT + (15 * 3_600 + 44 * 60 + 18) * times.SECOND + 500_000,
    "20261120T081460Z": MOMENT - 42 * times.SECOND,
    "2026-11-19T24:00:00Z": MOMENT - (8 * 3_600 + 15 * 60 + 42) * times.SECOND,
    "2026-11-19T24:00": MOMENT - (8 * 3_600 + 15 * 60 + 42) * times.SECOND,
    "2026-11-20T08:15:42 UTC": MOMENT,
    "2026-11-20 08:15:42utc": MOMENT,
    "2026-11-20 08:15:42 GMT": MOMENT,
    "2026-11-20  09:15:42 +01:00": MOMENT,
    "2026-11-20T09:15:42 UTC+1:00": None,
    "2026-11-20T09:15:42 UTC+01:00": MOMENT,
    " 2026-11-20T08:15:42Z\n": MOMENT,
    "2026-11-20T09:15:42[Europe/Paris]": MOMENT,
    "2026-07-20T10:15:42[Europe/Paris]": MOMENT - 123 * times.DAY,  # summer time
    "2026-11-20T09:15:42+01:00[Europe/Paris]": MOMENT,
    "2026-11-20T08:15:42Z[Europe/Paris]": MOMENT,
    "2026-11-20T08:15:42[UTC]": MOMENT,
    "2026-11-20T09:15:42.123+01:00[!Europe/Paris][u-ca=gregory]": MOMENT + 123_000,
    "2026-11-20T09:15:42[Nowhere/There]": None,
    "2026-11-20T09:15:42[Europe]": None,
    "2026-11-20T09:15:42[../../etc/passwd]": None,
    "2026-11-20-08:15:42": MOMENT,
    "2026-11-20-08-15-42": MOMENT,
    "2026-11-20-08:15:42.5+00:00": MOMENT + 500_000,
    "2026-11-20-08:00": None,  # perhaps a date and its zone
    "2026-11-20-0815": None,
    "2026-11-20T08-45": None,
    "Fri, 20 Nov 2026 08:15:42 +0000": MOMENT,
    "Fri, 20 Nov 2026 09:15:42 +0100": MOMENT,
    "fri, 20 nov 2026 08:15:42 gmt": MOMENT,
    "20 Nov 2026 03:15:42 EST": MOMENT,
    "Fri, 20 Nov 2026 08:15:42 -0000 (UTC)": MOMENT,
    "Fri, 20 Nov 2026 08:14:60 GMT": MOMENT - 42 * times.SECOND,
    "Fri, 20 Nov 2026 08:15:42 +9999": None,
    "Fri, 31 Feb 2026 08:15:42 GMT": None,
    "2026-11-20T24:00:01Z": None,
    "2026-11-20T08:15:61Z": None,
    "2026-11-20T08:15:60+24:00": None,
    "1795162542": MOMENT,
    "1795162542123": MOMENT + 123_000,
    "1795162542.25": MOMENT + 250_000,
    "1795101512345": 1_795_101_512_345_000,
    "20261120": 20_261_120 * times.SECOND,  # never a date
    "99999999999": 99_999_999_999 * times.SECOND,
    "100000000000": 100_000_000 * times.SECOND,
    "999999999999999": None,  # after the year 9999
    "9" * 5_000: None,
    "１７９５１６２５４２": None,
    1_795_162_542: MOMENT,
    1_795_162_542_123: MOMENT + 123_000,
    1_795_162_542.25: MOMENT + 250_000,
    -1: -times.SECOND,
    10**400: None,
    1e308: None,
    float("nan"): None,
    None: None,
    "": None,
    "yesterday": None,
}


@pytest.mark.parametrize(("value", "time_us"), SENT_SO.items(), ids=lambda v: repr(v)[:40])
def test_a_time_is_read_as_programs_send_it(value: object, time_us: int | None) -> None:
    assert times.read(value) == time_us


@pytest.mark.parametrize("value", [True, False, [], {}, b"1795162542", [1_795_162_542]])
def test_what_is_no_number_is_no_time_either(value: object) -> None:
    assert times.read(value) is None


@steady
@given(st.integers(13_000_000_000_00, 25_000_000_000_00))
def test_milliseconds_are_milliseconds_whatever_their_digits(milliseconds: int) -> None:
    assert times.read(str(milliseconds)) == times.read(milliseconds) == milliseconds * 1_000
    assert times.parse(str(milliseconds)) is None


@steady
@given(
    st.text("0123456789-:+.TZ []/UTCGMEuropePais,FriNov", max_size=40)
    | st.text("0123456789", max_size=6).flatmap(
        lambda digits: st.sampled_from([str(text) for text in SENT_SO]).map(
            lambda text: text.replace("20", digits)
        )
    )
    | st.integers()
    | st.floats()
)
def test_reading_what_programs_send_never_fails(value: object) -> None:
    moment = times.read(value)
    assert moment is None or FIRST - times.DAY <= moment <= LAST + times.DAY


@steady
@given(every_time)
def test_what_is_written_is_read_alike(time_us: int) -> None:
    assert times.read(times.iso(time_us)) == time_us


@steady
@given(st.text(st.characters(exclude_categories=())) | st.text("0123456789-:+.TZW ", max_size=40))
def test_reading_never_fails(text: str) -> None:
    moment = times.parse(text)
    assert moment is None or FIRST - times.DAY < moment < LAST + times.DAY


@steady
@given(every_time)
def test_what_is_written_is_read_again(time_us: int) -> None:
    text = times.iso(time_us)
    assert text.endswith("Z")
    assert times.parse(text) == time_us


@steady
@given(every_time)
def test_as_a_datetime_it_is_the_same_moment_in_utc(time_us: int) -> None:
    moment = times.to_datetime(time_us)
    assert moment.utcoffset() == timedelta(0)
    assert times.parse(moment.isoformat()) == time_us


@steady
@given(every_time, st.integers(-1439, 1439))
def test_an_offset_is_taken_off(time_us: int, minutes: int) -> None:
    local = times.to_datetime(time_us).replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert times.parse(local.isoformat()) == time_us - minutes * times.MINUTE


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0, "2026-11-20T08:15:42Z"),
        (500_000, "2026-11-20T08:15:42.500Z"),
        (1_000, "2026-11-20T08:15:42.001Z"),
        (1, "2026-11-20T08:15:42.000001Z"),
        (999_999, "2026-11-20T08:15:42.999999Z"),
    ],
)
def test_a_time_is_written_as_fine_as_it_is(fraction: int, text: str) -> None:
    assert times.iso(MOMENT + fraction) == text


def test_years_before_1000_have_four_digits() -> None:
    assert times.iso(FIRST) == "0001-01-01T00:00:00Z"


def test_the_clock_is_the_wall_clock_in_whole_microseconds() -> None:
    before = time.time_ns() // 1_000
    now = times.now()
    after = time.time_ns() // 1_000
    assert isinstance(now, int)
    assert before <= now <= after
    assert times.to_datetime(0) == datetime(1970, 1, 1, tzinfo=UTC)
