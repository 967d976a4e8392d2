"""What is tried again, how often and after which pause; and what must not be."""

from __future__ import annotations

import json

import pytest

from receiver.providers import exchange
from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.api.errors import (
    NotFound,
    TryLater,
    Unavailable,
)
from tests.canned import Canned, Step, ok, reset, status
from tests.providers.zimsend.api.calls import (
    BROKEN,
    CALLS,
    ID,
    KEY,
    MESSAGE,
    NO_JSON,
    NOT_REPEATED,
    REPEATED,
    Naps,
    call,
    error_shapes,
)

PASSING = {
    **BROKEN,
    "429": ok(error_shapes("RATE_LIMIT_EXCEEDED")[0], 429),
    "500": ok(error_shapes("NETWORK_ERROR")[1], 500),
    "502": status(502, NO_JSON["HTML"]),
    "503": ok(error_shapes("DEVICE_OFFLINE")[0], 503),
}


@pytest.mark.parametrize("step", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("name", ["status", "delete_webhook"])
def test_what_passes_is_tried_again(
    patient: ZimSend, server: Canned, naps: Naps, name: str, step: Step
) -> None:
    server.answers(step, step, step, ok(CALLS[name][4]))
    CALLS[name][0](patient)
    assert len(server.seen) == 4
    ceilings = [exchange.FIRST_PAUSE * 2**n for n in range(3)]
    assert all(0 <= nap <= most for nap, most in zip(naps.taken, ceilings, strict=True))


@pytest.mark.parametrize("step", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("name", ["send", "verify_otp", "cancel"])
def test_what_may_have_happened_is_not_tried_again(
    patient: ZimSend, server: Canned, naps: Naps, name: str, step: Step
) -> None:
    server.answers(step, ok(CALLS[name][4]))
    call(patient, name)
    assert (len(server.seen), naps.taken) == (1, [])


@pytest.mark.parametrize("name", REPEATED)
def test_what_is_repeated(patient: ZimSend, server: Canned, name: str) -> None:
    server.answers(status(502))
    error = call(patient, name)
    assert type(error) is Unavailable
    assert len(server.seen) == 4
    assert len({seen.path for seen in server.seen}) == 1


@pytest.mark.parametrize("name", NOT_REPEATED)
def test_what_is_not_repeated(patient: ZimSend, server: Canned, name: str) -> None:
    server.answers(status(502))
    call(patient, name)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "step", [status(400), status(401), ok(error_shapes("X")[0], 404), status(301), ok([])]
)
def test_what_does_not_pass_is_not_tried_again(
    patient: ZimSend, server: Canned, naps: Naps, step: Step
) -> None:
    server.answers(step)
    call(patient, "status")
    assert (len(server.seen), naps.taken) == (1, [])


def test_pauses_differ_and_grow(patient: ZimSend, server: Canned, naps: Naps) -> None:
    server.answers(status(502))
    for _ in range(40):
        call(patient, "status")
    for number in range(3):
        pauses = naps.taken[number::3]
        most = exchange.FIRST_PAUSE * 2**number
        assert len(set(pauses)) == 40
        assert min(pauses) < most / 3
        assert most * 2 / 3 < max(pauses) <= most


def test_patience_has_an_end(server: Canned, naps: Naps) -> None:
    server.answers(status(502))
    with ZimSend(
        KEY,
        ID,
        base_url=server.url,
        tries=1_000,
        patience=20,
        sleep=naps.sleep,
        clock=naps.clock,
    ) as zimsend:
        call(zimsend, "status")
    assert 3 < len(naps.taken) < 1_000
    assert 10 < sum(naps.taken) <= 20
    assert max(naps.taken) <= exchange.LONGEST_PAUSE


def test_a_server_that_says_when(patient: ZimSend, server: Canned, naps: Naps) -> None:
    def limited(seconds: str) -> Step:
        body = json.dumps(error_shapes("RATE_LIMIT_EXCEEDED")[0]).encode()
        return status(429, body, f"Retry-After: {seconds}")

    server.answers(limited("7"), limited("soon"), ok(MESSAGE))
    patient.status("msg_1")
    assert 7 == naps.taken[0] > naps.taken[1]
    server.answers(limited("31"))
    assert call(patient, "status").retry_after == 31  # longer than patience is
    assert (len(server.seen), len(naps.taken)) == (1, 2)
    server.answers(limited("5"))
    error = call(patient, "send")
    assert (type(error), error.retry_after) == (TryLater, 5)


def test_a_webhook_that_an_earlier_try_removed(patient: ZimSend, server: Canned) -> None:
    gone = ok(error_shapes("WEBHOOK_NOT_FOUND")[0], 404)
    server.answers(reset, gone)
    patient.delete_webhook("wh_1")
    server.answers(status(502), ok(error_shapes("RATE_LIMIT_EXCEEDED")[0], 429), gone)
    patient.delete_webhook("wh_1")
    server.answers(ok(error_shapes("RATE_LIMIT_EXCEEDED")[0], 429), gone)
    with pytest.raises(NotFound) as caught:
        patient.delete_webhook("wh_1")
    assert isinstance(caught.value.__cause__, TryLater)
    server.answers(gone)
    with pytest.raises(NotFound):
        patient.delete_webhook("wh_1")
