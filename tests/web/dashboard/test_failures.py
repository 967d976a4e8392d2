"""`/failures`: groups of work that was given up, and the replay of what a preview has shown."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import urlencode

import pytest

from receiver import causes
from receiver.parts import Receiver
from receiver.times import SECOND
from tests.conftest import Clock, Provider
from tests.payloads import envelope, sms
from tests.web.dashboard.conftest import Visitor, field_of
from tests.web.dashboard.work import TRACE, die

CAUSE = "KeyError at /app/my_handlers.py:12"
GROUP = f"/failures/group?{urlencode({'handler': 'second', 'cause': CAUSE})}"


def send(provider: Provider, count: int = 1) -> None:
    for _ in range(count):
        assert provider.post(envelope("sms.sent", sms("sent"))).status_code == 200


@pytest.fixture
def three(provider: Provider, receiver: Receiver, clock: Clock) -> int:
    """Three pieces of work of one cause; returns when they died."""
    send(provider, 3)
    assert die(receiver, clock()) == 3
    return clock()


def replay(admin: Visitor, page: str) -> str:
    """Press the button of a preview; returns what is shown then."""
    fields = {name: unescape(field_of(page, name)) for name in ("handler", "cause", "until")}
    answer = admin.post("/failures/replay", fields)
    assert answer.status_code == 303
    return admin.get(answer.location).text


@pytest.mark.usefixtures("three")
def test_groups_tell_kind_place_and_number_and_no_text(admin: Visitor) -> None:
    text = admin.get("/failures").text
    assert '<bdi class="foreign">KeyError</bdi>' in text
    assert "/app/my_handlers.py:12" in text
    assert 'class="n">3</td>' in text
    assert "CMD-1042" not in text
    preview = admin.get(GROUP).text
    assert "Replay these 3" in preview
    assert "CMD-1042" in preview  # of its examples, the last errors


def test_exactly_what_was_previewed_is_replayed(
    admin: Visitor, provider: Provider, receiver: Receiver, clock: Clock, three: int
) -> None:
    preview = admin.get(GROUP).text
    clock.time += SECOND
    send(provider, 2)
    assert die(receiver, clock()) == 2
    assert "3 pieces of work are given to their handler again" in replay(admin, preview)
    (group,) = receiver.store.groups()
    assert (group.number, group.first) == (2, three + SECOND)
    assert "Nothing was given again" in replay(admin, preview)
    assert receiver.store.work_counts() == [("first", 5, 0), ("second", 3, 2)]


@pytest.mark.usefixtures("three")
def test_a_reader_in_french(admin: Visitor) -> None:
    admin.get("/?lang=fr")
    assert "Travail abandonné" in admin.get("/failures").text
    page = admin.get(GROUP).text
    assert "Rejouer ces 3" in page
    assert "3 tâches sont redonnées à leur gestionnaire." in replay(admin, page)


def test_work_of_a_handler_that_is_gone_is_not_replayed(
    admin: Visitor, receiver: Receiver, clock: Clock
) -> None:
    admin.get("/failures")
    group = urlencode({"handler": "gone", "cause": causes.NO_HANDLER})
    page = admin.get(f"/failures/group?{group}").text
    assert "Nothing is left in this group" in page
    answer = admin.post(
        "/failures/replay", {"handler": "gone", "cause": causes.NO_HANDLER, "until": "1"}
    )
    assert "Nothing was given again" in admin.get(answer.location).text
    assert receiver.store.work_counts() == []


@pytest.mark.usefixtures("three")
def test_a_group_of_a_handler_that_was_removed_says_what_to_do(
    admin: Visitor, receiver: Receiver, clock: Clock
) -> None:
    assert receiver.store.bury(clock.time + SECOND, [], 0) == 3  # the other handler's
    text = admin.get("/failures").text
    assert "No handler of this name is registered" in text
    assert text.index("my_handlers.py:12") > text.index("No handler of this name")


@pytest.mark.parametrize("until", ["", "x", "-1", "9" * 19, "9" * 30, "1e5"])
@pytest.mark.usefixtures("three")
def test_a_mark_that_is_none_replays_nothing(
    admin: Visitor, receiver: Receiver, until: str
) -> None:
    answer = admin.post("/failures/replay", {"handler": "second", "cause": CAUSE, "until": until})
    assert answer.status_code == 303
    (group,) = receiver.store.groups()
    assert group.number == 3


def test_whatever_a_kind_of_error_is_called_is_text(
    admin: Visitor, provider: Provider, receiver: Receiver, clock: Clock
) -> None:
    send(provider)
    place = '/app/<img src=x onerror=alert(1)>\u202e"/x.py'
    die(receiver, clock(), error="KeyError: <b>", trace=TRACE.replace("/app/my_handlers.py", place))
    ((cause),) = (group.cause for group in receiver.store.groups())
    pages = ["/failures", f"/failures/group?{urlencode({'handler': 'second', 'cause': cause})}"]
    for path in pages:
        text = admin.get(path).text
        assert "<img src=x" not in text
        assert "<b>" not in text
        assert "\u202e" not in re.sub(r'<input type="hidden"[^>]*>', "", text)
    assert replay(admin, admin.get(pages[1]).text)
    assert receiver.store.groups() == []


def test_nothing_was_given_up(admin: Visitor) -> None:
    assert "Nothing was given up" in admin.get("/failures").text
