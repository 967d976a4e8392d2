"""The simulated ZimSend's API over HTTP: its calls, and the port that they are served on."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from receiver import times
from receiver.mirror import number as digits
from receiver.providers.simulating import running
from receiver.providers.zimsend.simulator.history import history_page, statistics_of
from receiver.providers.zimsend.simulator.reading import (
    read_events,
    read_list,
    read_metadata,
    read_page,
    read_priority,
    read_request,
    read_schedule,
    read_string,
    read_text,
    read_to,
    read_url,
    read_whole,
)
from receiver.providers.zimsend.simulator.refusal import ApiRefusal
from receiver.providers.zimsend.simulator.running import Simulator
from receiver.providers.zimsend.simulator.world import (
    OTP_TRIES,
    SimulatedMessage,
    Webhook,
    WebhookEvent,
    view,
)

MOST_RECIPIENTS = 100
#: One-time codes an hour for one number.
MOST_CODES = 10


def create_api(simulator: Simulator) -> Flask:
    """PROVIDER's calls, each in the first of its documented shapes; `GET /truth` and `/clock`."""
    app = Flask("zimsend-simulator", static_folder=None)
    world = simulator.world
    codes: dict[str, dict[str, Any]] = {}  # one-time codes, by their id
    webhook_numbers = itertools.count(len(world.webhooks) + 1)

    def call(
        rule: str, method: str, status: int = 200, *, alone: bool = True
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """One call of the API: authenticated, counted, alone in the world while it runs.

        :param alone: `False` for a call that waits for somebody else.
        """

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            def view(**arguments: Any) -> Response:
                with simulator.lock:
                    world.pass_time(simulator.now())
                    simulator.admit(dict(request.headers))
                    if alone:
                        return _answer(function(**arguments), status)
                return _answer(function(**arguments), status)

            app.add_url_rule(f"/v1{rule}", f"{method} {rule}", view, methods=[method])
            return function

        return declare

    running.add_truth(app, simulator)

    @app.errorhandler(ApiRefusal)
    def refused(error: ApiRefusal) -> Response:
        body = {"success": False, "error": {"code": error.code, "message": error.message}}
        return _answer(body, error.status)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        return refused(ApiRefusal(error.code or 500, "NOT_FOUND", error.description or ""))

    def check(to: Any, text: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """What `World.send` takes; nothing is queued yet."""
        device = request.headers.get("X-Device-ID") or None
        if device is not None and device not in world.devices:
            raise ApiRefusal(404, "INVALID_DEVICE_ID", "No such device")
        url = options.get("webhook_url")
        read_whole(options, "retry_attempts", 1, 1, 5)
        return {
            "to": read_to(to),
            "text": read_text(text),
            "device_id": device,
            "metadata": read_metadata(options.get("metadata")),
            "priority": read_priority(options.get("priority", 3)),
            "webhook_url": None if url is None else read_url(url, "webhook_url"),
            "scheduled_at": read_schedule(options.get("scheduled_at"), world.now),
        }

    def find(message_id: str) -> SimulatedMessage:
        message = world.messages.get(message_id)
        if message is None:
            raise ApiRefusal(404, "MESSAGE_NOT_FOUND", "No such message")
        return message

    @call("/sms/send", "POST")
    def send() -> dict[str, Any]:
        asked = read_request(request)
        message = world.send(**check(asked.get("to"), asked.get("message"), asked))
        return {
            "success": True,
            "message_id": message.id,
            "status": "queued",
            "to": message.to,
            "queued_at": times.iso(message.queued_at),
            "estimated_delivery": times.iso(message.starts_at + 5 * times.SECOND),
        }

    def bulk(pairs: list[tuple[Any, Any, Mapping[str, Any]]]) -> dict[str, Any]:
        if len(pairs) > MOST_RECIPIENTS:
            raise ApiRefusal(400, "TOO_MANY_RECIPIENTS", f"At most {MOST_RECIPIENTS} recipients")
        checked = [check(*pair) for pair in pairs]  # all of them, or none is queued
        messages = [world.send(**one) for one in checked]
        return {
            "success": True,
            "batch_id": f"batch_{messages[0].number}",
            "total_recipients": len(messages),
            "messages": [
                {"message_id": message.id, "to": message.to, "status": "queued"}
                for message in messages
            ],
            "queued_at": times.iso(world.now),
        }

    @call("/sms/send-bulk", "POST")
    def send_bulk() -> dict[str, Any]:
        asked = read_request(request)
        return bulk([(to, asked.get("message"), asked) for to in read_list(asked, "recipients")])

    @call("/sms/send-bulk-personalized", "POST")
    def send_bulk_personalized() -> dict[str, Any]:
        asked = read_request(request)
        messages = [m if isinstance(m, dict) else {} for m in read_list(asked, "messages")]
        return bulk([(m.get("to"), m.get("message"), {**asked, **m}) for m in messages])

    @call("/sms/send-otp", "POST")
    def send_otp() -> dict[str, Any]:
        asked = read_request(request)
        number = len(codes) + 1
        length = read_whole(asked, "length", 6, 4, 8)
        expiry = read_whole(asked, "expiry", 300, 1, 86_400)
        code = "".join(world.chance("otp", number).choices("0123456789", k=length))
        template = read_string(asked, "template", "Votre code est {{code}}")
        checked = check(asked.get("to"), template.replace("{{code}}", code), asked)
        to, hour_ago = digits(checked["to"]), world.now - times.HOUR
        if sum(c["to"] == to and c["at"] > hour_ago for c in codes.values()) >= MOST_CODES:
            raise ApiRefusal(429, "OTP_RATE_LIMIT", f"At most {MOST_CODES} codes an hour")
        message = world.send(**checked)
        otp_id = f"otp_{world.seed}_{number}"
        expires_at = world.now + expiry * times.SECOND
        codes[otp_id] = {
            "code": code,
            "to": to,
            "at": world.now,
            "expires_at": expires_at,
            "left": OTP_TRIES,
        }
        return {
            "success": True,
            "otp_id": otp_id,
            "to": message.to,
            "expires_at": times.iso(expires_at),
            "message_id": message.id,
            "status": "queued",
        }

    @call("/sms/verify-otp", "POST")
    def verify_otp() -> dict[str, Any]:
        asked = read_request(request)
        otp, given = codes.get(read_string(asked, "otp_id")), read_string(asked, "code")
        if otp is None:
            raise ApiRefusal(404, "OTP_NOT_FOUND", "No such code")
        if world.now > otp["expires_at"]:
            raise ApiRefusal(400, "OTP_EXPIRED", "The code has expired")
        if otp["left"] <= 0:
            raise ApiRefusal(429, "OTP_MAX_ATTEMPTS", "No attempts are left")
        valid = given == otp["code"]
        otp["left"] = 0 if valid else otp["left"] - 1
        return {
            "success": True,
            "valid": valid,
            "message": "The code is right" if valid else "The code is wrong",
            "attempts_remaining": otp["left"],
        }

    @call("/sms/status/<message_id>", "GET")
    def status(message_id: str) -> dict[str, Any]:
        shown = view(find(message_id))
        names = ("message_id", "status", "to", "message", "priority", "queued_at", "sent_at")
        answer = {name: shown[name] for name in (*names, "delivered_at", "metadata")}
        return {"success": True, **answer, "created_at": shown["queued_at"]}

    @call("/sms/history", "GET")
    def history() -> dict[str, Any]:
        return history_page(list(world.messages.values()), request.args)

    @call("/sms/stats", "GET")
    def stats() -> dict[str, Any]:
        return statistics_of(list(world.messages.values()), request.args)

    @call("/sms/<message_id>", "DELETE")
    def cancel(message_id: str) -> dict[str, Any]:
        message = find(message_id)
        if not world.cancel(message):
            raise ApiRefusal(400, "CANNOT_CANCEL_MESSAGE", f"It is {message.status}")
        told = {"message": "Message cancelled", "message_id": message.id, "status": "cancelled"}
        return {"success": True, **told}

    @call("/sms/<message_id>/resend", "POST", 202)
    def resend(message_id: str) -> dict[str, Any]:
        message = find(message_id)
        if not world.resend(message):
            raise ApiRefusal(400, "CANNOT_RESEND_MESSAGE", f"It is {message.status}, not failed")
        return {"success": True, "message_id": message.id, "status": "queued"}

    @call("/webhooks/configure", "POST")
    def configure() -> dict[str, Any]:
        asked = read_request(request)
        url, events = read_url(asked.get("url"), "url"), read_events(asked)
        number = next(webhook_numbers)
        made = f"whsec_{world.chance('secret', number).getrandbits(128):032x}"
        secret = read_string(asked, "secret", made)
        webhook = Webhook(f"wh_{number}", url, events, secret.encode())
        world.webhooks[webhook.id] = webhook
        return {**_webhook(webhook), "secret": secret}

    @call("/webhooks", "GET")
    def webhooks() -> dict[str, Any]:
        return {"success": True, "webhooks": [_webhook(w) for w in world.webhooks.values()]}

    @call("/webhooks/<webhook_id>", "DELETE", 204)
    def delete_webhook(webhook_id: str) -> None:
        if world.webhooks.pop(webhook_id, None) is None:
            raise ApiRefusal(404, "WEBHOOK_NOT_FOUND", "No such webhook")

    # The receiver may ask this API before it answers.
    @call("/webhooks/<webhook_id>/test", "POST", alone=False)
    def test_webhook(webhook_id: str) -> dict[str, Any]:
        with simulator.lock:
            webhook = world.webhooks.get(webhook_id)
            if webhook is None:
                raise ApiRefusal(404, "WEBHOOK_NOT_FOUND", "No such webhook")
            post = world.test(webhook)
        began = time.monotonic()
        outcome = simulator.send(post)
        took_ms = int((time.monotonic() - began) * 1000)
        with simulator.lock:
            world.answered(post, outcome, took_ms)
        return {"message": "Test event sent", "response_status": _status(outcome)}

    @call("/webhooks/logs", "GET")
    def webhook_logs() -> dict[str, Any]:
        page, limit = read_page(request.args)
        lines = [_log_line(number, *line) for number, line in enumerate(world.log, 1)]
        lines.reverse()
        return {"logs": lines[(page - 1) * limit : page * limit]}

    return app


def serve(simulator: Simulator, host: str, port: int) -> Callable[[], None]:
    """Start the API and the phones; returns what ends them.

    :raises OSError: if it cannot listen there.
    """
    return running.serve(simulator, create_api(simulator), host, port)


def _answer(body: Any, status: int = 200) -> Response:
    return Response("" if body is None else json.dumps(body), status, mimetype="application/json")


def _webhook(webhook: Webhook) -> dict[str, Any]:
    shown = {"webhook_id": webhook.id, "url": webhook.url, "events": list(webhook.events)}
    return {**shown, "status": "active"}


def _log_line(number: int, event: WebhookEvent, attempt: int) -> dict[str, Any]:
    ended = event.tries[attempt]
    status = _status(ended.outcome)
    return {
        "log_id": f"log_{number}",
        "webhook_id": event.webhook_id,
        "event": event.type,
        "url": event.url,
        "response_status": status,
        "response_time_ms": ended.took_ms,
        "success": status == 200,
        "attempt": attempt + 1,
        "timestamp": times.iso(ended.at),
    }


def _status(outcome: str) -> int | None:
    """The status that came back, if the sender saw one."""
    return int(outcome) if outcome.isdecimal() else None
