"""`POST /webhooks/zimsend`: verify the raw bytes, parse them, store, answer.

A WSGI application of its own, in front of Flask: what Flask does for a request (routing, contexts,
request and response objects) takes several times as long as verifying and parsing an event, and
nothing of it would be used.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.http import HTTP_STATUS_CODES

from receiver import event
from receiver.errors import Refused, StoreUnavailable, Unusable
from receiver.event import Incoming, Rejected
from receiver.logs import Sparingly
from receiver.parts import Receiver
from receiver.providers.zimsend.webhook import parse, verify
from receiver.web.bodies import read_body
from receiver.web.problems import PROBLEM_TYPE, problem_document, refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


log = logging.getLogger(__name__)
_retries = Sparingly()

PATH = "/webhooks/zimsend"


class Webhook:
    """Answers what is sent to `PATH`, and leaves the rest to the application behind it."""

    def __init__(self, receiver: Receiver, behind: WSGIApplication) -> None:
        self._receiver = receiver
        self._behind = behind

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != PATH:
            return self._behind(environ, start_response)
        headers = {"Content-Type": "application/json"}
        try:
            status, text = 200, self._receive(environ)
        except Exception as error:
            status, detail, further = refusal(error)
            headers = {"Content-Type": PROBLEM_TYPE, **further}
            text = problem_document(status, detail)
        body = text.encode()
        headers["Content-Length"] = str(len(body))
        start_response(f"{status} {HTTP_STATUS_CODES[status]}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _receive(self, environ: WSGIEnvironment) -> str:
        """Acknowledge nothing that is not on the disk. No handler runs in here.

        :raises Refused, StoreUnavailable: where the answer is not 200.
        """
        if environ["REQUEST_METHOD"] != "POST":
            raise Refused(405, "webhooks come by POST alone", {"Allow": "POST"})
        config = self._receiver.config
        body = read_body(environ, config.max_body_bytes)
        claimed = environ.get("HTTP_X_WEBHOOK_SIGNATURE")
        if not verify(config.webhook_secrets, body, claimed):
            raise Refused(401, "the signature is missing, or does not match the body")
        now = self._receiver.now()
        item: Incoming | Rejected
        try:
            item = parse(
                body, received_at=now, retention=config.retention, text_mode=config.text_mode
            )
        except Unusable as unusable:
            item = event.reject(body, unusable.reason, received_at=now, text_mode=config.text_mode)
        try:
            outcome = self._receiver.ingest.submit(item)
        except StoreUnavailable:
            raise
        except Exception:
            # Whatever is signed is kept, also where this program has a defect.
            log.exception("an event could not be stored and goes into quarantine")
            reason = "the store refused it; after an update, `flask quarantine retry` may take it"
            item = event.reject(body, reason, received_at=now, text_mode=config.text_mode)
            outcome = self._receiver.ingest.submit(item)
        if isinstance(item, Rejected):
            raise Refused(400, item.reason)
        if outcome == "quarantined":
            raise Refused(400, event.EXPIRED)
        if outcome == "duplicate":
            warn_of_retries(item.id)
        return f'{{"status": "{outcome}", "event_id": {json.dumps(item.id)}}}'


def warn_of_retries(event_id: str) -> None:
    """An event that comes again is one whose first answer ZimSend did not see in time."""
    held_back = _retries.admit()
    if held_back is not None:
        log.warning(
            "event %s came again: ZimSend gives up after its third try%s",
            event_id,
            f" ({held_back} more came again since the last such line)" if held_back else "",
        )
