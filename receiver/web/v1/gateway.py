"""`/v1`: the calls that send, check and take back go on to ZimSend, and the mirror learns of them.

What ZimSend answers goes back as it came. What keeps an answer from coming is told in ZimSend's own
error shape, with whether the SMS may have been sent.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from urllib.parse import quote

from flask import Blueprint, Response, request
from werkzeug.routing import BaseConverter

from receiver import ids
from receiver.errors import StoreUnavailable, Unusable
from receiver.event import Incoming, clean_id
from receiver.parts import parts
from receiver.providers import PROVIDERS
from receiver.providers.exchange import Answer
from receiver.providers.zimsend import sending
from receiver.providers.zimsend.api.answers import Message
from receiver.providers.zimsend.api.errors import NotUnderstood, Unavailable, ZimSendError
from receiver.providers.zimsend.facts import facts, moments
from receiver.status import STATES
from receiver.strict_json import read_json
from receiver.times import DAY, HOUR
from receiver.web.answers import RETRY_AFTER
from receiver.web.bodies import LARGEST_PASSED_ON, read_body
from receiver.web.v1 import ApiError, authenticate

log = logging.getLogger(__name__)
blueprint = Blueprint("gateway", __name__, url_prefix="/v1")
blueprint.before_request(authenticate)

#: Seconds that somebody who asks for a message waits for ZimSend, at most.
ASK_WITHIN = 2.0
#: Of a request's headers, what ZimSend is told; of an answer's, what the caller is told.
_PASSED_ON = ("Content-Type", "Content-Encoding", "X-Device-ID")
_PASSED_BACK = ("content-type", "retry-after")
#: A value that is passed back. A server may refuse any other, and the SMS is on its way by then.
_CLEAN = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")


class MessageId(BaseConverter):
    """Whatever an id holds, slashes as well, but for the names that other calls have there."""

    regex = (
        r"(?!(?:send(?:-bulk(?:-personalized)?|-otp)?|verify-otp|history|stats)(?:/resend)?$)"
        r"(?!status/)(?s:.+)(?<!/resend)"
    )
    part_isolating = False


@blueprint.post("/sms/send", provide_automatic_options=False)
def send() -> Response:
    """One SMS."""
    return _send("/sms/send", takes_webhook=True)


@blueprint.post("/sms/send-bulk", provide_automatic_options=False)
def send_bulk() -> Response:
    """One text to many."""
    return _send("/sms/send-bulk", takes_webhook=True)


@blueprint.post("/sms/send-bulk-personalized", provide_automatic_options=False)
def send_bulk_personalized() -> Response:
    """Many texts."""
    return _send("/sms/send-bulk-personalized")


@blueprint.post("/sms/send-otp", provide_automatic_options=False)
def send_otp() -> Response:
    """A one-time code. ZimSend makes it, so its text is not known here."""
    return _send("/sms/send-otp", shows_text=False)


@blueprint.post("/sms/verify-otp", provide_automatic_options=False)
def verify_otp() -> Response:
    """Whether a one-time code is right. Nothing of it is kept."""
    return _passed_back(_pass_on("/sms/verify-otp", _body()))


@blueprint.post("/sms/<messageid:message_id>/resend", provide_automatic_options=False)
def resend(message_id: str) -> Response:
    """A message that failed, once more."""
    message_id = _own_id(message_id)
    asked_at = parts().now()
    answer = _pass_on(f"/sms/{quote(message_id, safe='')}/resend", _body())
    if _is_success(answer):
        _remember("queued", lambda: sending.changed(message_id, "queued", asked_at, answer.body))
    return _passed_back(answer)


@blueprint.delete("/sms/<messageid:message_id>", provide_automatic_options=False)
def cancel(message_id: str) -> Response:
    """Take a message back."""
    message_id = _own_id(message_id)
    asked_at = parts().now()
    answer = _pass_on(f"/sms/{quote(message_id, safe='')}", _body())
    if _is_success(answer):
        _remember(
            "cancelled", lambda: sending.changed(message_id, "cancelled", asked_at, answer.body)
        )
    return _passed_back(answer)


def learn(message_id: str) -> bool:
    """Ask ZimSend about a message that the mirror does not have, and keep what it says.

    At most once an hour for one id, whoever asks.

    :param message_id: of ZimSend's, as people write it.
    :returns: whether the mirror may know it now.
    """
    message_id = _own_id(message_id)
    receiver = parts()
    now = receiver.now()
    if receiver.zimsend is None or not receiver.waiting.acquire(blocking=False):
        return False
    try:
        if not receiver.store.claim_turn(f"asked:{clean_id(message_id)}", now, now + HOUR):
            return False
        message = receiver.zimsend.within(timeout=ASK_WITHIN).status(message_id)
        found = _told(message, now)
        receiver.ingest.submit_all(found)
    except (ZimSendError, StoreUnavailable, ValueError) as error:
        log.debug("nothing is learnt of a message: %s", type(error).__name__)
        return False
    finally:
        receiver.waiting.release()
    return bool(found)


def _told(message: Message, now: int) -> list[Incoming]:
    """The events that ZimSend's answer stands for.

    What has happened lately is none that was missed: its webhook may be on its way, and is a repeat
    then; but not where the answer has no times, by which that could be told.
    """
    config = parts().config
    told = partial(facts, message, now=now, retention=config.retention, text_mode=config.text_mode)
    # ZimSend's clock may be ahead of this one.
    found = told() or told(quiet=-DAY, source=sending.SOURCE)
    if not found and message.status in STATES and not moments(message):
        found = _events(message.status, [sending.shown(message)])
    return found


def _refuse_others() -> None:
    """Only ZimSend is sent through: nobody who asks for another provider is given to it.

    :raises ApiError: if a request names another one.
    """
    name = request.headers.get("X-Provider", ids.FIRST).strip().lower()
    if name not in PROVIDERS:
        raise ApiError(
            400, "INVALID_PROVIDER", f"X-Provider must be one of {', '.join(PROVIDERS)}."
        )
    if name != ids.FIRST:
        raise ApiError(501, "NOT_SUPPORTED", f"Nothing can be sent through {name} here.")


def _own_id(written: str) -> str:
    """The id that ZimSend knows.

    :raises ApiError: for a message of another provider's.
    """
    name, colon, own_id = written.partition(":")
    if not colon or name not in ids.NAMES:
        return written
    if name != ids.FIRST:
        raise ApiError(501, "NOT_SUPPORTED", f"This cannot be done to a message of {name} here.")
    return own_id


# --- how a request is passed on


def _send(path: str, *, takes_webhook: bool = False, shows_text: bool = True) -> Response:
    """
    :param takes_webhook: whether ZimSend's documents know `webhook_url` in this call.
    :param shows_text: whether the request holds the text of the SMS.
    """
    _refuse_others()
    config = parts().config
    body = _body()
    if takes_webhook and config.webhook_url is not None:
        body = sending.with_webhook(body, config.webhook_url)
    answer = _pass_on(path, body)
    if _is_success(answer):
        device_id = request.headers.get("X-Device-ID") or config.device_id
        _remember("queued", lambda: sending.queued(body, answer.body, device_id, shows_text))
    return _passed_back(answer)


def _body() -> bytes:
    return read_body(request.environ, max(LARGEST_PASSED_ON, parts().config.max_body_bytes))


def _pass_on(path: str, body: bytes) -> Answer:
    """
    :param path: below ZimSend's base URL, encoded.
    :raises ApiError: if no answer of ZimSend's came.
    """
    receiver = parts()
    zimsend = receiver.zimsend
    if zimsend is None:
        raise ApiError(
            503,
            "NOT_CONFIGURED",
            "Nothing can be sent: set ZIMSEND_API_KEY and ZIMSEND_CLIENT_ID where this runs.",
        )
    headers = {name: value for name in _PASSED_ON if (value := request.headers.get(name))}
    if not receiver.waiting.acquire(blocking=False):
        raise ApiError(
            503,
            "SERVICE_UNAVAILABLE",
            "Too many requests wait for ZimSend at this moment. Nothing was sent; try again.",
            {"Retry-After": str(RETRY_AFTER)},
        )
    try:
        answer = zimsend.forward(
            request.method,
            path,
            body or None,
            headers=headers,
            query=request.query_string.decode("latin-1"),
        )
    except ValueError as error:
        raise ApiError(400, "INVALID_REQUEST", f"This cannot be passed on: {error}.") from None
    except (Unavailable, NotUnderstood) as error:
        timed_out = isinstance(error, Unavailable) and error.timed_out
        raise _no_answer(504 if timed_out else 502, error.message, error.maybe_sent) from None
    finally:
        receiver.waiting.release()
    if not 200 <= answer.status <= 599 or not _is_theirs(answer):
        # A page for people, of ZimSend's proxy or another's: no program expects that here.
        told = f"HTTP {answer.status}, and no JSON"
        raise _no_answer(502, told, answer.status >= 500 or _is_success(answer))
    return answer


def _no_answer(status: int, reason: str, maybe_sent: bool) -> ApiError:
    log.warning("no answer from ZimSend (%s)", reason)
    if maybe_sent:
        advice = "The SMS may have been sent: look at ZimSend's history before you send it again."
    else:
        advice = "Nothing was sent; you can send the same again."
    return ApiError(status, "NETWORK_ERROR", f"No answer from ZimSend ({reason}). {advice}")


def _is_theirs(answer: Answer) -> bool:
    if not answer.body:
        return _is_success(answer)
    try:
        return isinstance(read_json(answer.body), dict)
    except Unusable:
        return False


def _is_success(answer: Answer) -> bool:
    return 200 <= answer.status < 300


def _passed_back(answer: Answer) -> Response:
    response = Response(answer.body, answer.status, content_type="application/json")
    for name, value in answer.headers:
        if name in _PASSED_BACK and _CLEAN.fullmatch(value):
            response.headers[name] = value
    return response


def _remember(state: str, messages: Callable[[], Iterable[sending.Fields]]) -> None:
    """Let the mirror know. Whatever comes of it, the SMS is on its way, and the caller is told so:
    what is missing is found by reconciliation."""
    try:
        parts().ingest.submit_all(_events(state, messages()))
    except StoreUnavailable as error:
        log.warning("the mirror does not know yet what ZimSend took: %s", error)
    except Exception:
        log.exception("the mirror does not know yet what ZimSend took")


def _events(state: str, messages: Iterable[sending.Fields]) -> list[Incoming]:
    receiver = parts()
    config = receiver.config
    return sending.events(
        state,
        messages,
        now=receiver.now(),
        retention=config.retention,
        text_mode=config.text_mode,
    )
