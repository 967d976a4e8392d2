"""Errors: by their code, by their status, by neither; and that none of them shows a secret."""

from __future__ import annotations

import json
import logging

import pytest

from receiver.errors import ReceiverError
from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.api.errors import (
    CredentialsRefused,
    NotFound,
    NotPossible,
    NotUnderstood,
    RequestRefused,
    TryLater,
    Unavailable,
    ZimSendError,
)
from tests.canned import Canned, ok, status
from tests.providers.zimsend.api.calls import (
    CALLS,
    ID,
    KEY,
    MESSAGE,
    NO_JSON,
    NUMBER,
    RESULTS,
    error_shapes,
)

CODES = {
    **dict.fromkeys(("INVALID_API_KEY", "INVALID_CLIENT_ID"), (CredentialsRefused, 401)),
    "MISSING_AUTH_HEADERS": (CredentialsRefused, 400),
    **dict.fromkeys(("INVALID_DEVICE_ID", "OTP_NOT_FOUND", "MESSAGE_NOT_FOUND"), (NotFound, 404)),
    **dict.fromkeys(("DEVICE_OFFLINE", "NO_DEVICE_AVAILABLE"), (TryLater, 503)),
    **dict.fromkeys(
        (
            "INVALID_PHONE_NUMBER",
            "MESSAGE_TOO_LONG",
            "INVALID_PRIORITY",
            "INVALID_SCHEDULED_DATE",
            "TOO_MANY_RECIPIENTS",
            "INVALID_WEBHOOK_URL",
            "INVALID_OTP",
        ),
        (RequestRefused, 400),
    ),
    "BLOCKED_NUMBER": (RequestRefused, 403),
    "NETWORK_ERROR": (Unavailable, 500),
    "SMS_SEND_TIMEOUT": (Unavailable, 504),
    "NO_CREDIT": (TryLater, 402),
    **dict.fromkeys(("OTP_RATE_LIMIT", "RATE_LIMIT_EXCEEDED", "QUOTA_EXCEEDED"), (TryLater, 429)),
    **dict.fromkeys(("OTP_EXPIRED", "CANNOT_CANCEL_MESSAGE"), (NotPossible, 400)),
    "OTP_MAX_ATTEMPTS": (NotPossible, 429),
}


@pytest.mark.parametrize("shape", [0, 1])
@pytest.mark.parametrize("code", CODES)
def test_the_codes(once: ZimSend, server: Canned, code: str, shape: int) -> None:
    kind, http_status = CODES[code]
    document = error_shapes(code)[shape]
    server.answers(ok(document, http_status))
    with pytest.raises(ZimSendError) as caught:
        once.send(NUMBER, "x")
    error = caught.value
    assert type(error) is kind
    assert isinstance(error, ReceiverError)
    assert (error.code, error.message, error.status) == (code, "Non !", http_status)
    assert error.maybe_sent == (kind is Unavailable)
    assert error.raw == document
    assert str(error) == f"Non ! ({code}, HTTP {http_status}). {error.advice}"
    server.answers(ok(document))  # with 200
    if document.get("success") is False:
        with pytest.raises(kind):
            once.send(NUMBER, "x")
    else:
        with pytest.raises(NotUnderstood):
            once.send(NUMBER, "x")


KINDS = {
    **dict.fromkeys((400, 405, 406, 413, 414, 415, 422, 431, 451, 499), RequestRefused),
    **dict.fromkeys((401, 403, 407), CredentialsRefused),
    **dict.fromkeys((402, 425, 429), TryLater),
    **dict.fromkeys((404, 410), NotFound),
    409: NotPossible,
    **dict.fromkeys((408, 500, 501, 502, 503, 504, 520, 524, 599), Unavailable),
    **dict.fromkeys((300, 301, 304, 307, 399), NotUnderstood),
}


@pytest.mark.parametrize(("http_status", "kind"), KINDS.items())
@pytest.mark.parametrize("shape", [0, 1])
def test_codes_that_nobody_knows(
    once: ZimSend, server: Canned, http_status: int, kind: type[ZimSendError], shape: int
) -> None:
    body = b"" if http_status == 304 else json.dumps(error_shapes("SOMETHING_NEW")[shape]).encode()
    server.answers(status(http_status, body))
    with pytest.raises(ZimSendError) as caught:
        once.send(NUMBER, "x")
    assert type(caught.value) is kind
    assert caught.value.status == http_status
    if body:
        assert caught.value.code == "SOMETHING_NEW"


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
@pytest.mark.parametrize("http_status", [400, 401, 404, 429, 500, 502, 503, 302])
def test_errors_of_others(once: ZimSend, server: Canned, http_status: int, body: bytes) -> None:
    server.answers(status(http_status, body, "Content-Type: text/html"))
    with pytest.raises(ZimSendError) as caught:
        once.status("msg_1")
    error = caught.value
    kind = KINDS.get(http_status, NotUnderstood)
    # Only ZimSend itself can say that there is no such message.
    if http_status == 404 and b'"error":' not in body.removeprefix(NO_JSON["Latin 1"]):
        kind = NotUnderstood
    assert type(error) is kind
    assert (error.code, error.status) == (None, http_status)
    assert error.maybe_sent == (http_status >= 500)
    assert error.message


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
@pytest.mark.parametrize("name", RESULTS)
def test_successes_that_are_none(once: ZimSend, server: Canned, name: str, body: bytes) -> None:
    call, *_ = CALLS[name]
    server.answers(status(200, body))
    if name in ("webhooks", "test_webhook") and (body == b"[]" or body.startswith(b'{"')):
        return  # an empty list, and no answer from the webhook
    with pytest.raises(NotUnderstood) as caught:
        call(once)
    assert (caught.value.status, caught.value.maybe_sent) == (200, True)
    assert caught.value.advice


def test_a_code_and_no_more(once: ZimSend, server: Canned) -> None:
    server.answers(ok({"success": False, "error": "QUOTA_EXCEEDED"}, 429))
    with pytest.raises(TryLater) as caught:
        once.send(NUMBER, "x")
    assert caught.value.code == "QUOTA_EXCEEDED"


@pytest.mark.parametrize("shape", [0, 1])
def test_no_error_shows_a_secret(once: ZimSend, server: Canned, shape: int) -> None:
    secret = "whsec_of_my_own"
    text = f"no {KEY} {ID} {secret}\r\n\x1b[31m" + "x" * 10_000
    for code in (f"KEY_{KEY}", "LINE\nBREAK", secret):
        document = error_shapes(code)[shape]
        if shape:
            document["error"] = text
        else:
            document["error"]["message"] = text
        server.answers(ok(document, 400))
        with pytest.raises(RequestRefused) as caught:
            once.configure_webhook("https://example.org", [], secret=secret)
        error = caught.value
        assert error.code is None
        shown = f"{error} {error!r} {error.message}"
        assert not any(hidden in shown for hidden in (KEY, ID, secret, "\n", "\x1b"))
        assert len(error.message) <= 300
    server.answers(ok({"error": "123456 is wrong", "code": "OTP_EXPIRED"}, 400))
    with pytest.raises(NotPossible) as otp:
        once.verify_otp("otp_1", "123456")
    assert "123456" not in str(otp.value)
    assert KEY not in repr(once)
    assert ID not in repr(once)


def test_the_log_shows_no_secret(
    once: ZimSend, server: Canned, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers(ok(MESSAGE))
    with caplog.at_level(logging.DEBUG):
        once.send(NUMBER, "Bonjour")
    assert not any(hidden in caplog.text for hidden in (KEY, ID, NUMBER, "Bonjour"))
