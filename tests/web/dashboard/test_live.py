"""`/live`: what comes in, each time from where the last answer ended."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest

from receiver.parts import Receiver
from receiver.providers.zimsend.webhook import parse
from receiver.store import Position
from receiver.times import DAY, SECOND
from receiver.web.dashboard import live
from tests.conftest import Provider
from tests.payloads import envelope
from tests.web.dashboard.conftest import Visitor

pytestmark = pytest.mark.each_engine


class Reader:
    """Somebody who reads on with the link, or by script."""

    def __init__(self, admin: Visitor, path: str = "/live") -> None:
        self._admin = admin
        self.path = path

    def read(self, *, script: bool = False) -> list[str]:
        text = self._admin.get(self.path).text
        pattern = r'data-live="([^"]+)"' if script else r'id="newer" href="([^"]+)"'
        (found,) = re.findall(pattern, text)
        self.path = unescape(found)
        self.text = text
        return re.findall(r'href="/events/(e[^"]+)"', text)


def send(provider: Provider, *numbers: int) -> None:
    for number in numbers:
        event = envelope("device.connected", {}, event_id=f"e{number:03}")
        assert provider.post(event).status_code == 200


def test_each_answer_goes_on_where_the_last_one_ended(admin: Visitor, provider: Provider) -> None:
    reader = Reader(admin)
    assert reader.read() == []
    assert "Nothing has come in yet" in reader.text
    send(provider, 1, 2)
    assert reader.read() == ["e001", "e002"]
    assert reader.read() == []
    assert "Nothing has come in since" in reader.text
    send(provider, 2, 3)
    assert reader.read(script=True) == ["e003"]
    assert reader.read(script=True) == []
    assert Reader(admin).read() == ["e001", "e002", "e003"]
    assert Reader(admin, "/live?from=0").read() == ["e001", "e002", "e003"]


def test_who_cannot_read_so_quickly_is_told_what_is_left_out(
    admin: Visitor, receiver: Receiver
) -> None:
    script, person = Reader(admin), Reader(admin)
    script.read(script=True)
    person.read()
    bodies = (json.dumps(envelope("otp.sent", {}, event_id=f"e{n:03}")) for n in range(250))
    items = [parse(b.encode(), received_at=receiver.now(), retention=90 * DAY) for b in bodies]
    receiver.store.ingest(items, lambda _: (), 5)
    assert script.read(script=True) == [f"e{n:03}" for n in range(150, 250)]
    assert "More came in than can be shown here" in script.text
    assert script.read(script=True) == []
    # Who reads on by hand gets all of it.
    assert person.read() == [f"e{n:03}" for n in range(100)]
    assert "data-full" in person.text
    assert person.read() == [f"e{n:03}" for n in range(100, 200)]
    assert person.read() == [f"e{n:03}" for n in range(200, 250)]


@pytest.mark.parametrize(
    "written", ["x", "-1", "1.5", "9" * 30, "5_1", "5_9.1.1", "5_1.2.3", "5" + "_1.1.1" * 201, ""]
)
def test_a_position_that_is_none_is_the_newest(
    admin: Visitor, provider: Provider, written: str
) -> None:
    send(provider, 1)
    answer = admin.get(f"/live?from={written}")
    assert answer.status_code == 200


def test_a_position_is_written_into_an_address_and_read_again() -> None:
    position = Position(500, ((17, 20, 1_795_162_542 * SECOND), (499, 499, 5 * SECOND)))
    assert live.read(live.written(position)) == position
