"""A ZimSend on one's own machine: its API over HTTP, its phones, and the webhooks they cause.

The `world` beside it decides what happens; this file gives it a clock, a port and threads.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

from receiver import times
from receiver.errors import Unusable
from receiver.mirror import number as digits
from receiver.mirror import statistics
from receiver.providers.zimsend.samples import SAMPLES
from receiver.providers.zimsend.simulator.world import (
    OTP_TRIES,
    REPORTS,
    Message,
    Post,
    Webhook,
    WebhookEvent,
    World,
    view,
)
from receiver.strict_json import read_json

#: Seconds that the provider waits for an answer.
ANSWER_WITHIN = 5.0
#: Requests a minute for the account.
RATE_LIMIT = 100
LONGEST_TEXT = 1_600
LARGEST_METADATA = 1_024
MOST_RECIPIENTS = 100
#: One-time codes an hour for one number.
MOST_CODES = 10
FURTHEST_SCHEDULE = 30 * times.DAY
#: Tries that are on their way at once.
_POSTERS = 32
_NUMBER = re.compile(r"\+?[1-9][0-9]{6,14}")
_PRIORITIES = (1, 2, 3, 4, 5, "low", "normal", "high")
#: No half of a surrogate pair.
_ENCODABLE = re.compile(r"[^\ud800-\udfff]*")


class ApiError(Exception):
    """An answer in ZimSend's error shape."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message or code


class Simulator:
    """Runs a world in real time, or faster.

    :param speed: seconds of the world for each second of the clock on the wall.
    :param credentials: the API key and the client id that are let in.
    """

    def __init__(self, world: World, *, speed: float = 1.0, credentials: tuple[str, str]) -> None:
        self.world = world
        #: Guards the world.
        self.lock = threading.RLock()
        self.speed = speed
        self.credentials = credentials
        #: How many requests the account made, and how many were refused for their number.
        self.requests, self.limited = 0, 0
        self._recent: deque[int] = deque()
        self._started = time.monotonic()
        self._client = httpx.Client(timeout=ANSWER_WITHIN, follow_redirects=False)
        self._posters = ThreadPoolExecutor(_POSTERS, thread_name_prefix="poster")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
        self._on_the_way = 0

    def now(self) -> int:
        """The world's time."""
        gone = (time.monotonic() - self._started) * self.speed
        return self.world.began + int(gone * times.SECOND)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()  # else it would hand out work to posters that are gone
        self._posters.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    @property
    def at_rest(self) -> bool:
        """Nothing will happen any more unless somebody sends something."""
        with self.lock:
            return self.world.at_rest and not self._on_the_way

    def _run(self) -> None:
        while not self._stopped.wait(0.005):
            with self.lock:
                posts = self.world.advance(self.now())
                self._on_the_way += len(posts)
            for post in posts:
                self._posters.submit(self._post, post)

    def _post(self, post: Post) -> None:
        outcome, began = "lost on the way", time.monotonic()
        try:
            if not post.lost:
                outcome = self.send(post)
        finally:
            unseen = post.lost or post.answer_lost
            took = ANSWER_WITHIN if unseen else time.monotonic() - began
            with self.lock:
                self.world.pass_time(self.now())
                self.world.answered(post, outcome, int(took * 1000))
                self._on_the_way -= 1

    def send(self, post: Post) -> str:
        """Send a request, and say what came back."""
        try:
            answer = self._client.post(
                post.event.url, content=post.event.body, headers=post.headers
            )
        except httpx.TimeoutException:
            return "no answer in time"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            return f"no connection ({type(error).__name__})"
        return str(answer.status_code)

    def admit(self, headers: Mapping[str, str]) -> None:
        """ZimSend's authentication, and its limit of requests.

        :raises ApiError: as documented.
        """
        key, client = headers.get("X-Api-Key"), headers.get("X-Client-Id")
        if not key or not client:
            raise ApiError(400, "MISSING_AUTH_HEADERS", "X-API-Key and X-Client-ID are required")
        if key != self.credentials[0]:
            raise ApiError(401, "INVALID_API_KEY", "The API key is not valid")
        if client != self.credentials[1]:
            raise ApiError(401, "INVALID_CLIENT_ID", "The client id is not valid")
        now = self.now()
        while self._recent and self._recent[0] <= now - times.MINUTE:
            self._recent.popleft()
        self.requests += 1
        if len(self._recent) >= RATE_LIMIT:
            self.limited += 1
            raise ApiError(429, "RATE_LIMIT_EXCEEDED", "More than 100 requests in a minute")
        self._recent.append(now)


# --- the API


def create_api(simulator: Simulator) -> Flask:
    """PROVIDER's calls, each in the first of its documented shapes; and `GET /truth`."""
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

    @app.get("/truth")
    def truth() -> Response:
        with simulator.lock:
            world.pass_time(simulator.now())
            told = {"requests": simulator.requests, "limited": simulator.limited}
            return _answer({**world.truth(), "at_rest": simulator.at_rest, "api": told})

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Response:
        body = {"success": False, "error": {"code": error.code, "message": error.message}}
        return _answer(body, error.status)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        return api_error(ApiError(error.code or 500, "NOT_FOUND", error.description or ""))

    def check(to: Any, text: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """What `World.send` takes; nothing is queued yet."""
        device = request.headers.get("X-Device-ID") or None
        if device is not None and device not in world.devices:
            raise ApiError(404, "INVALID_DEVICE_ID", "No such device")
        url = options.get("webhook_url")
        _whole(options, "retry_attempts", 1, 1, 5)
        return {
            "to": _to(to),
            "text": _text(text),
            "device_id": device,
            "metadata": _metadata(options.get("metadata")),
            "priority": _priority(options.get("priority", 3)),
            "webhook_url": None if url is None else _url(url, "webhook_url"),
            "scheduled_at": _schedule(options.get("scheduled_at"), world.now),
        }

    def find(message_id: str) -> Message:
        message = world.messages.get(message_id)
        if message is None:
            raise ApiError(404, "MESSAGE_NOT_FOUND", "No such message")
        return message

    @call("/sms/send", "POST")
    def send() -> dict[str, Any]:
        asked = _asked()
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
            raise ApiError(400, "TOO_MANY_RECIPIENTS", f"At most {MOST_RECIPIENTS} recipients")
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
        asked = _asked()
        return bulk([(to, asked.get("message"), asked) for to in _list(asked, "recipients")])

    @call("/sms/send-bulk-personalized", "POST")
    def send_bulk_personalized() -> dict[str, Any]:
        asked = _asked()
        messages = [m if isinstance(m, dict) else {} for m in _list(asked, "messages")]
        return bulk([(m.get("to"), m.get("message"), {**asked, **m}) for m in messages])

    @call("/sms/send-otp", "POST")
    def send_otp() -> dict[str, Any]:
        asked = _asked()
        number = len(codes) + 1
        length = _whole(asked, "length", 6, 4, 8)
        expiry = _whole(asked, "expiry", 300, 1, 86_400)
        code = "".join(world.chance("otp", number).choices("0123456789", k=length))
        template = _string(asked, "template", "Votre code est {{code}}")
        checked = check(asked.get("to"), template.replace("{{code}}", code), asked)
        to, hour_ago = digits(checked["to"]), world.now - times.HOUR
        if sum(c["to"] == to and c["at"] > hour_ago for c in codes.values()) >= MOST_CODES:
            raise ApiError(429, "OTP_RATE_LIMIT", f"At most {MOST_CODES} codes an hour")
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
        asked = _asked()
        otp, given = codes.get(_string(asked, "otp_id")), _string(asked, "code")
        if otp is None:
            raise ApiError(404, "OTP_NOT_FOUND", "No such code")
        if world.now > otp["expires_at"]:
            raise ApiError(400, "OTP_EXPIRED", "The code has expired")
        if otp["left"] <= 0:
            raise ApiError(429, "OTP_MAX_ATTEMPTS", "No attempts are left")
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
        return _history(list(world.messages.values()), request.args)

    @call("/sms/stats", "GET")
    def stats() -> dict[str, Any]:
        return _stats(list(world.messages.values()), request.args)

    @call("/sms/<message_id>", "DELETE")
    def cancel(message_id: str) -> dict[str, Any]:
        message = find(message_id)
        if not world.cancel(message):
            raise ApiError(400, "CANNOT_CANCEL_MESSAGE", f"It is {message.status}")
        told = {"message": "Message cancelled", "message_id": message.id, "status": "cancelled"}
        return {"success": True, **told}

    @call("/sms/<message_id>/resend", "POST", 202)
    def resend(message_id: str) -> dict[str, Any]:
        message = find(message_id)
        if not world.resend(message):
            raise ApiError(400, "CANNOT_RESEND_MESSAGE", f"It is {message.status}, not failed")
        return {"success": True, "message_id": message.id, "status": "queued"}

    @call("/webhooks/configure", "POST")
    def configure() -> dict[str, Any]:
        asked = _asked()
        url, events = _url(asked.get("url"), "url"), _events(asked)
        number = next(webhook_numbers)
        made = f"whsec_{world.chance('secret', number).getrandbits(128):032x}"
        secret = _string(asked, "secret", made)
        webhook = Webhook(f"wh_{number}", url, events, secret.encode())
        world.webhooks[webhook.id] = webhook
        return {**_webhook(webhook), "secret": secret}

    @call("/webhooks", "GET")
    def webhooks() -> dict[str, Any]:
        return {"success": True, "webhooks": [_webhook(w) for w in world.webhooks.values()]}

    @call("/webhooks/<webhook_id>", "DELETE", 204)
    def delete_webhook(webhook_id: str) -> None:
        if world.webhooks.pop(webhook_id, None) is None:
            raise ApiError(404, "WEBHOOK_NOT_FOUND", "No such webhook")

    # The receiver may ask this API before it answers.
    @call("/webhooks/<webhook_id>/test", "POST", alone=False)
    def test_webhook(webhook_id: str) -> dict[str, Any]:
        with simulator.lock:
            webhook = world.webhooks.get(webhook_id)
            if webhook is None:
                raise ApiError(404, "WEBHOOK_NOT_FOUND", "No such webhook")
            post = world.test(webhook)
        began = time.monotonic()
        outcome = simulator.send(post)
        took_ms = int((time.monotonic() - began) * 1000)
        with simulator.lock:
            world.answered(post, outcome, took_ms)
        return {"message": "Test event sent", "response_status": _status(outcome)}

    @call("/webhooks/logs", "GET")
    def webhook_logs() -> dict[str, Any]:
        page, limit = _page(request.args)
        lines = [_log_line(number, *line) for number, line in enumerate(world.log, 1)]
        lines.reverse()
        return {"logs": lines[(page - 1) * limit : page * limit]}

    return app


def serve(simulator: Simulator, host: str, port: int) -> Callable[[], None]:
    """Start the API and the phones; returns what ends them.

    :raises OSError: if it cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # A socket of our own: about a port that is taken Werkzeug prints words, and exits.
    with socket.create_server((host, port), family=family) as listener:
        server = make_server(
            host,
            port,
            create_api(simulator),
            threaded=True,
            request_handler=_Quiet,
            fd=listener.fileno(),
        )
    thread = threading.Thread(target=server.serve_forever, name="api", daemon=True)
    thread.start()
    simulator.start()

    def close() -> None:
        server.shutdown()
        server.server_close()
        simulator.stop()

    return close


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        """Not a line for each request: `GET /truth` tells more."""


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


# --- what callers may ask


def _asked() -> dict[str, Any]:
    try:
        asked = read_json(request.get_data()) if request.is_json else None
    except Unusable:
        asked = None
    if not isinstance(asked, dict):
        raise ApiError(400, "INVALID_REQUEST", "The body must be a JSON object")
    return asked


def _list(asked: Mapping[str, Any], name: str) -> list[Any]:
    values = asked.get(name)
    if not isinstance(values, list) or not values:
        raise ApiError(400, "INVALID_REQUEST", f"{name} must be a list, and not empty")
    return values


def _string(asked: Mapping[str, Any], name: str, default: str | None = None) -> str:
    text = default if asked.get(name) is None else asked[name]
    if type(text) is not str or not text or not _ENCODABLE.fullmatch(text):
        raise ApiError(400, "INVALID_PARAMETER", f"{name} must be a text")
    return text


def _whole(asked: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    number = default if asked.get(name) is None else asked[name]
    if type(number) is not int or not least <= number <= most:
        raise ApiError(400, "INVALID_PARAMETER", f"{name} must be from {least} to {most}")
    return number


def _url(url: Any, name: str) -> str:
    try:
        if type(url) is str and re.fullmatch(r"https?://\S+", url):
            parsed = httpx.URL(url)
            if parsed.host and (parsed.port or 0) < 65_536:
                return url
    except (httpx.InvalidURL, ValueError):
        pass
    raise ApiError(400, "INVALID_WEBHOOK_URL", f"{name} must be a URL")


def _metadata(metadata: Any) -> Any:
    text = json.dumps(metadata, ensure_ascii=False).encode("utf-8", "backslashreplace")
    if not isinstance(metadata, dict | None) or len(text) > LARGEST_METADATA:
        raise ApiError(400, "INVALID_PARAMETER", "metadata must be an object of at most 1 KB")
    return metadata


def _events(asked: Mapping[str, Any]) -> tuple[str, ...]:
    if asked.get("events") is None:
        return REPORTS
    events = _list(asked, "events")
    if not all(type(event) is str and event in SAMPLES for event in events):
        raise ApiError(400, "INVALID_PARAMETER", f"events: any of {', '.join(SAMPLES)}")
    return tuple(events)


def _to(to: Any) -> str:
    if type(to) is not str or not _NUMBER.fullmatch(re.sub(r"[ .()-]", "", to)):
        raise ApiError(400, "INVALID_PHONE_NUMBER", "to must be a number like +33612345678")
    return to


def _text(text: Any) -> str:
    if type(text) is not str or not text:
        raise ApiError(400, "INVALID_REQUEST", "message must be a text")
    if len(text) > LONGEST_TEXT:
        raise ApiError(400, "MESSAGE_TOO_LONG", f"At most {LONGEST_TEXT} characters")
    return text


def _priority(priority: Any) -> Any:
    if type(priority) not in (int, str) or priority not in _PRIORITIES:
        raise ApiError(400, "INVALID_PRIORITY", "priority must be from 1 to 5")
    return priority


def _schedule(text: Any, now: int) -> int | None:
    if text is None:
        return None
    moment = times.parse(text)
    if moment is None or not now <= moment <= now + FURTHEST_SCHEDULE:
        raise ApiError(400, "INVALID_SCHEDULED_DATE", "scheduled_at: at most 30 days ahead")
    return moment


def _history(messages: list[Message], asked: Mapping[str, str]) -> dict[str, Any]:
    page, limit = _page(asked)
    found = _found(messages, asked)
    found.sort(key=lambda message: (-message.queued_at, message.number))
    names = ("message_id", "status", "to", "message", "sent_at", "delivered_at")
    rows = [view(message) for message in found[(page - 1) * limit : page * limit]]
    return {
        "success": True,
        "data": [{name: row[name] for name in names} for row in rows],
        "pagination": {
            "current_page": page,
            "per_page": limit,
            "total_pages": -(-len(found) // limit),
            "total_items": len(found),
        },
    }


def _page(asked: Mapping[str, str]) -> tuple[int, int]:
    """`page` and `limit`."""
    numbers = []
    for name, default in (("page", "1"), ("limit", "50")):
        text = asked.get(name) or default
        if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) < 1:
            raise ApiError(400, "INVALID_PARAMETER", f"{name} must be a whole number from 1 on")
        numbers.append(int(text))
    return numbers[0], min(100, numbers[1])


def _moment(asked: Mapping[str, str], name: str) -> int | None:
    text = asked.get(name)
    if not text:
        return None
    moment = times.parse(text)
    if moment is None:
        raise ApiError(400, "INVALID_PARAMETER", f"{name} must be a date or time in ISO 8601")
    return moment


def _found(messages: list[Message], asked: Mapping[str, str]) -> list[Message]:
    """The messages that are asked for."""
    since, until = _moment(asked, "from_date"), _moment(asked, "to_date")
    if until is not None and len(asked["to_date"]) == len("2026-11-20"):
        until += times.DAY - 1

    def matches(message: Message) -> bool:
        at = message.sent_at or message.queued_at
        return (
            asked.get("status") in (None, "", message.status)
            and asked.get("device_id") in (None, "", message.device_id)
            and asked.get("to") in (None, "", message.to)
            and asked.get("search", "").casefold() in message.text.casefold()
            and (since is None or since <= at)
            and (until is None or at <= until)
        )

    return [message for message in messages if matches(message)]


def _stats(messages: list[Message], asked: Mapping[str, str]) -> dict[str, Any]:
    counts = [
        ((m.sent_at or m.failed_at or m.queued_at) // times.DAY, m.status, 1)
        for m in _found(messages, asked)
    ]
    period = {"from": asked.get("from_date"), "to": asked.get("to_date")}
    return {"success": True, "period": period, "stats": statistics(counts)}
