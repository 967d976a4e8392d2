"""What the event loop refuses before there is a whole request is counted as elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from receiver.metrics import ACCEPTED, REFUSED, histogram
from receiver.parts import Receiver
from tests.web.front.test_limits import HEAD, House, house, signed

__all__ = ["house"]


def test_what_is_refused_on_the_loop_is_counted(
    house: Callable[..., House],
    receiver: Receiver,
) -> None:
    here = house()
    half = here.come(HEAD + b"Content-Length: 10\r\n\r\nabc")
    here.half_close(half)
    broken = here.come(HEAD + b"Transfer-Encoding: chunked\r\n\r\nno length\r\n")
    elsewhere = here.come(HEAD.replace(b"/webhooks", b"/v1") + b"Content-Length: 10\r\n\r\nabc")
    here.half_close(elsewhere)
    large = here.come(HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000)
    assert [wire.statuses for wire in (half, broken, elsewhere, large)] == [
        *([400], [400], [400], [413]),
    ]
    assert receiver.counting.flush()
    assert receiver.store.counters() == {(REFUSED, "body"): 2, (REFUSED, "size"): 1}


def test_an_answer_counts_from_the_last_byte(
    house: Callable[..., House],
    receiver: Receiver,
) -> None:
    here = house()
    request = signed()
    slow = here.come(request[:-1])
    here.ahead += 4
    here.say(slow, request[-1:])
    here.until(lambda: slow.statuses == [200])
    assert receiver.counting.flush()
    counters = receiver.store.counters()
    assert counters[ACCEPTED, "zimsend", "sms.sent"] == 1
    buckets, seconds = histogram("ack_duration_seconds", (), counters)
    assert buckets[-1] == ("+Inf", 1)
    assert 0 < seconds < 3
