"""`/v1`: the calls that send, check and take back go on to a provider, and the mirror learns of
them.

What keeps an answer from coming is told in ZimSend's own error shape, with whether the SMS may have
been sent.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from flask import Blueprint, Response, request
from werkzeug.routing import BaseConverter

from receiver import ids
from receiver.errors import StoreUnavailable
from receiver.event import Incoming, clean_id
from receiver.parts import parts
from receiver.providers import PROVIDERS, SENDING, Asked, Told
from receiver.providers.errors import ProviderError
from receiver.providers.exchange import Answer
from receiver.providers.requests import Fields, NotTaken
from receiver.times import HOUR
from receiver.web.answers import RETRY_AFTER
from receiver.web.bodies import LARGEST_PASSED_ON, read_body
from receiver.web.v1 import ApiError, authenticate

log = logging.getLogger(__name__)
blueprint = Blueprint("gateway", __name__, url_prefix="/v1")
blueprint.before_request(authenticate)

#: Seconds that somebody who asks for a message waits for its provider, at most.
ASK_WITHIN = 2.0
#: Of an answer's headers, what the caller is told.
_PASSED_BACK = ("content-type", "retry-after")
#: A value that is passed back. A server may refuse any other, and the SMS is on its way by then.
_CLEAN = re.compile(r"[!-~](?:[ -~]{0,254}[!-~])?")
#: Errors that pass by themselves.
_PASSING = ("RATE_LIMIT_EXCEEDED", "SERVICE_UNAVAILABLE")


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
    return _send("send")


@blueprint.post("/sms/send-bulk", provide_automatic_options=False)
def send_bulk() -> Response:
    """One text to many."""
    return _send("send-bulk")


@blueprint.post("/sms/send-bulk-personalized", provide_automatic_options=False)
def send_bulk_personalized() -> Response:
    """Many texts."""
    return _send("send-bulk-personalized")


@blueprint.post("/sms/send-otp", provide_automatic_options=False)
def send_otp() -> Response:
    """A one-time code, which the provider makes."""
    return _send("send-otp")


@blueprint.post("/sms/verify-otp", provide_automatic_options=False)
def verify_otp() -> Response:
    """Whether a one-time code is right: its id says whose it is. Nothing of it is kept."""
    asked = _asked()
    try:
        written = asked.fields.get("otp_id")
    except NotTaken:  # ZimSend says what is wrong with it
        written = None
    name, own_id = _split(written if isinstance(written, str) else "")
    return _done([name], "verify-otp", replace(asked, own_id=own_id))


@blueprint.post("/sms/<messageid:message_id>/resend", provide_automatic_options=False)
def resend(message_id: str) -> Response:
    """A message that failed, once more."""
    name, own_id = _split(message_id)
    return _done([name], "resend", _asked(own_id))


@blueprint.delete("/sms/<messageid:message_id>", provide_automatic_options=False)
def cancel(message_id: str) -> Response:
    """Take a message back."""
    name, own_id = _split(message_id)
    return _done([name], "cancel", _asked(own_id))


def learn(message_id: str) -> bool:
    """Ask its provider about a message that the mirror does not have, and keep what it says.

    At most once an hour for one id, whoever asks.

    :param message_id: as people write it.
    :returns: whether the mirror may know it now.
    """
    receiver = parts()
    name, own_id = _split(message_id)
    sender = receiver.senders.get(name)
    if sender is None or not receiver.waiting.acquire(blocking=False):
        return False
    now = receiver.now()
    try:
        turn = f"asked:{ids.key(name, clean_id(own_id))}"
        if not receiver.store.claim_turn(turn, now, now + HOUR):
            return False
        found = sender.ask(own_id, ASK_WITHIN)
        receiver.ingest.submit_all(found)
    except (ProviderError, StoreUnavailable, ValueError) as error:
        log.debug("nothing is learnt of a message: %s", type(error).__name__)
        return False
    finally:
        receiver.waiting.release()
    return bool(found)


def _split(written: str) -> tuple[str, str]:
    """The provider of an id as people write it, and the id that the provider knows."""
    name, colon, own_id = written.partition(":")
    return (name, own_id) if colon and name in ids.NAMES else (ids.FIRST, written)


def _asked(own_id: str = "") -> Asked:
    most = max(LARGEST_PASSED_ON, parts().config.max_body_bytes)
    return Asked(
        read_body(request.environ, most),
        own_id=own_id,
        headers={name.lower(): value for name, value in request.headers},
        query=request.query_string.decode("latin-1"),
        tells_provider="X-Provider" in request.headers or bool(parts().config.send_with),
    )


# --- who is asked


def _send(call: str) -> Response:
    named = request.headers.get("X-Provider")
    if named is None:
        names = parts().send_with or (ids.FIRST,)
        senders = parts().senders
        able = [name for name in names if name in senders and call in senders[name].calls]
        return _done(able or names[:1], call, _asked())
    name = named.strip().lower()
    if name not in PROVIDERS:
        raise ApiError(
            400, "INVALID_PROVIDER", f"X-Provider must be one of {', '.join(PROVIDERS)}."
        )
    return _done([name], call, _asked())


def _done(names: Sequence[str], call: str, asked: Asked) -> Response:
    """The answer of the first provider that takes it. Each is asked only where the ones before
    surely sent nothing; where nobody takes it, the first one's answer says why.

    :raises ApiError: if it is an error.
    """
    receiver = parts()
    for name in names:
        _check(name, call)
    if not receiver.waiting.acquire(blocking=False):
        raise ApiError(
            503,
            "SERVICE_UNAVAILABLE",
            "Too many requests wait for providers at this moment. Nothing was sent; try again.",
            {"Retry-After": str(RETRY_AFTER)},
        )
    try:
        shown = None
        for number, name in enumerate(names):
            if number:
                log.info("%s surely sent nothing (%s): %s is asked", names[number - 1], call, name)
            told = _told(name, call, asked)
            _remember(name, told.events)
            if shown is None or not told.leaves_it:
                shown = told
            if not told.leaves_it:
                break
    finally:
        receiver.waiting.release()
    assert shown is not None
    return _response(shown.answer)


def _check(name: str, call: str) -> None:
    """
    :raises ApiError: if this provider cannot be asked for this call.
    """
    if name in parts().senders:
        if call not in parts().senders[name].calls:
            raise ApiError(
                501, "NOT_SUPPORTED", f"{PROVIDERS[name].title} cannot do this ({call})."
            )
    elif name == ids.FIRST:
        needed = ", or ".join(" and ".join(each.settings) for each in SENDING.values())
        raise ApiError(
            503, "NOT_CONFIGURED", f"Nothing can be sent: set {needed}, where this runs."
        )
    else:
        missing = " and ".join(SENDING[name].settings) if name in SENDING else ""
        advice = f": set {missing}, where this runs." if missing else "."
        raise ApiError(501, "NOT_SUPPORTED", f"This cannot be done through {name} here{advice}")


def _told(name: str, call: str, asked: Asked) -> Told:
    try:
        return parts().senders[name].calls[call](asked)
    except NotTaken as problem:
        return Told(problem, leaves_it=problem.leaves_it)
    except StoreUnavailable as error:  # nobody else may send what nobody could write down
        log.warning("%s sent nothing, since the store is away: %s", name, error)
        told = "Nothing was sent: the store cannot be used at this moment. Try again."
        return Told(NotTaken(503, "SERVICE_UNAVAILABLE", told))


def _remember(name: str, events: Callable[[], Iterable[Incoming]]) -> None:
    """Let the mirror know. Whatever comes of it, the SMS is on its way, and the caller is told so:
    what is missing is found by reconciliation."""
    try:
        parts().ingest.submit_all(list(events()))
    except StoreUnavailable as error:
        log.warning("the mirror does not know yet what %s took: %s", name, error)
    except Exception:
        log.exception("the mirror does not know yet what %s took", name)


# --- what is answered


def _response(answer: Fields | Answer | NotTaken) -> Response:
    """
    :raises ApiError: for what was not taken.
    """
    if isinstance(answer, NotTaken):
        if answer.status >= 500:
            log.warning("a request to send ends with %s %s", answer.status, answer.code)
        raise ApiError(
            answer.status,
            answer.code,
            answer.message,
            _retry_after(answer),
            {} if answer.message_id is None else {"message_id": answer.message_id},
        )
    if not isinstance(answer, Answer):
        return Response(json.dumps(answer), content_type="application/json")
    response = Response(answer.body, answer.status, content_type="application/json")
    for name, value in answer.headers:
        if name in _PASSED_BACK and _CLEAN.fullmatch(value):
            response.headers[name] = value
    return response


def _retry_after(problem: NotTaken) -> dict[str, str]:
    wait = problem.retry_after
    if wait is None and problem.code in _PASSING:
        wait = RETRY_AFTER
    return {} if wait is None else {"Retry-After": str(math.ceil(wait))}
