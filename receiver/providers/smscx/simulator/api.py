"""The simulated SMS.CX's API over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from receiver.providers.simulating import running
from receiver.providers.smscx.simulator import reading
from receiver.providers.smscx.simulator.reading import ApiRefusal, wrong
from receiver.providers.smscx.simulator.running import Simulator
from receiver.providers.smscx.simulator.world import (
    CENTS,
    SimulatedMessage,
    SimulatedOtp,
    otp_view,
    sent_view,
    view,
)

MOST_ROWS = 500


def create_api(simulator: Simulator) -> Flask:
    """The calls that this service makes, `GET /truth` and `GET /clock`."""
    app = Flask("smscx-simulator", static_folder=None)
    world = simulator.world

    def call(
        rule: str, method: str, status: int = 200
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """One call of the API: authenticated, counted, alone in the world while it runs."""

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            def view(**arguments: Any) -> Response:
                with simulator.lock:
                    world.pass_time(simulator.now())
                    simulator.admit(dict(request.headers))
                    return _answer(function(**arguments), status)

            app.add_url_rule(rule, f"{method} {rule}", view, methods=[method])
            return function

        return declare

    running.add_truth(app, simulator)

    @app.errorhandler(ApiRefusal)
    def refused(error: ApiRefusal) -> Response:
        response = _answer(error.body, error.status)
        response.headers.update(error.headers)
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        kind = {404: "not_found", 405: "invalid_method"}.get(error.code or 500, "server_error")
        return refused(ApiRefusal(error.code or 500, kind, None, error.description or ""))

    # --- messages

    def send(numbers: list[str], asked: Mapping[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        reading.read_uuid(asked, "idempotencyId", 1111)
        scheduled_at = reading.read_schedule(asked, world.now)
        text, sender = reading.read_text(asked, world.now), reading.read_sender(asked)
        url = reading.read_url(asked, "dlrCallbackUrl", 1109)
        if world.credit is not None:
            if world.credit < len(numbers):
                raise ApiRefusal(400, "insufficient_credit", 1113, "Not enough credit")
            world.credit -= len(numbers)
        messages = world.send(
            numbers,
            text,
            sender=sender,
            scheduled_at=scheduled_at,
            callback_url=url,
            track_data=more.pop("trackData", None),
        )
        rows = [sent_view(message) for message in messages]
        info = {
            "campaignId": messages[0].campaign_id if messages else None,
            "totalPhoneNumbers": len(rows),
            "totalValid": len(rows),
            "totalCost": sum(row["cost"] for row in rows),
            "totalParts": sum(row["parts"] for row in rows),
            "dlrCallbackUrl": url or world.callback_url,
            "phoneNumbersByCountry": {"FR": len(rows)},
            "scheduled": scheduled_at is not None,
            **more,
        }
        if asked.get("shortResponse") is True:
            return {"info": info}
        return {"info": info, "data": rows}

    @call("/sms", "POST")
    def sms() -> dict[str, Any]:
        asked = reading.read_request(request)
        numbers, invalid = reading.read_numbers(asked)
        more: dict[str, Any] = {"totalInvalid": len(invalid)}
        if invalid:
            more["invalid"] = invalid
        return send(numbers, asked, {**more, "trackData": reading.read_track_data(asked)})

    @call("/sms/campaign", "POST")
    def campaign() -> dict[str, Any]:
        asked = reading.read_request(request)
        numbers = reading.read_groups(asked, world.groups)
        return send(numbers, asked, {"groups": asked["groups"], "duplicatesRemoved": 0})

    @call("/sms/scheduled/<msg_id>", "DELETE")
    def delete(msg_id: str) -> dict[str, Any]:
        message = find(msg_id)
        if not world.delete(message):
            raise ApiRefusal(403, "access_denied", 1118, "It is not scheduled")
        told = {"parts": 1, "creditReturned": CENTS / 100, "channel": "sms"}
        return {"info": {"msgId": message.id, **told}}

    @call("/sms/scheduled/campaign/<campaign_id>", "DELETE")
    def delete_campaign(campaign_id: str) -> dict[str, Any]:
        messages = campaign_messages(campaign_id)
        deleted = sum(world.delete(message) for message in messages)
        if not deleted:
            raise ApiRefusal(403, "access_denied", 1118, "Nothing of it is scheduled")
        return {
            "info": {
                "campaignId": campaign_id,
                "totalPhoneNumbers": len(messages),
                "totalParts": len(messages),
                "phoneNumbersDeleted": deleted,
                "partsDeleted": deleted,
                "creditReturned": deleted * CENTS / 100,
                "channel": "sms",
            }
        }

    def find(msg_id: str) -> SimulatedMessage:
        message = world.messages.get(msg_id)
        if message is None or message.deleted_at is not None:
            raise ApiRefusal(404, "not_found", 1100, "No such message")
        return message

    def campaign_messages(campaign_id: str) -> list[SimulatedMessage]:
        found = [each for each in world.messages.values() if each.campaign_id == campaign_id]
        if not found:
            raise ApiRefusal(404, "not_found", 1160, "No such campaign")
        return found

    # --- one-time codes

    @call("/otp", "POST", 201)
    def new_otp() -> dict[str, Any]:
        asked = reading.read_request(request)
        numbers, _ = reading.read_numbers({"to": asked.get("phoneNumber")})
        template = asked.get("template", "{{pin}}")
        if type(template) is not str or "{{pin}}" not in template:
            raise wrong(2004, "template must have {{pin}} in it")
        reading.read_text({"text": template.replace("{{pin}}", "0")}, world.now)
        if asked.get("from") is not None:
            reading.read_sender(asked)
        alphabet = reading.ALPHABETS.get(asked.get("pinType", "numbers"))
        if alphabet is None:
            raise wrong(2011, "pinType must be letters, numbers or alphanumeric")
        otp = world.new_otp(
            numbers[0],
            ttl=reading.read_whole(asked, "ttl", 300, 60, 1800, 2008),
            max_attempts=reading.read_whole(asked, "maxAttempts", 3, 1, 10, 2009),
            alphabet=alphabet,
            length=reading.read_whole(asked, "pinLength", 6, 4, 10, 2012),
            callback_url=reading.read_url(asked, "otpCallbackUrl", 2014),
            track_id=reading.read_uuid(asked, "trackId", 2018),
        )
        return otp_view(otp)

    def find_otp(otp_id: str) -> SimulatedOtp:
        otp = world.codes.get(otp_id)
        if otp is None:
            raise ApiRefusal(404, "not_found", 2021, "No such code")
        return otp

    @call("/otp/<otp_id>", "GET")
    def otp_status(otp_id: str) -> dict[str, Any]:
        return otp_view(find_otp(otp_id))

    @call("/otp/<otp_id>", "POST")
    def verify_otp(otp_id: str) -> dict[str, Any]:
        otp, pin = find_otp(otp_id), reading.read_request(request).get("pin")
        ended = {"VERIFIED": 2023, "CANCELLED": 2024, "EXPIRED": 2025, "FAILED": 2026}
        if otp.status in ended:
            kind = f"otp_{otp.status.lower()}"
            raise ApiRefusal(400, kind, ended[otp.status], f"The code is {otp.status.lower()}")
        otp.attempts += 1
        if pin == otp.pin:
            world.change_otp(otp, "VERIFIED")
            return {"status": "VERIFIED"}
        if otp.attempts >= otp.max_attempts:
            world.change_otp(otp, "FAILED")
        raise ApiRefusal(400, "invalid_pin", 2029, "The pin is wrong")

    @call("/otp/<otp_id>", "DELETE")
    def cancel_otp(otp_id: str) -> dict[str, Any]:
        otp = find_otp(otp_id)
        if otp.status != "PENDING":
            raise ApiRefusal(403, "access_denied", 2030, "It is not pending")
        world.change_otp(otp, "CANCELLED")
        return {"info": {"id": otp.id}}

    # --- reports

    @call("/reports/single/<msg_id>", "GET")
    def report(msg_id: str) -> dict[str, Any]:
        return {"data": view(find(msg_id))}

    @call("/reports", "GET")
    def reports() -> dict[str, Any]:
        since, until = reading.read_days(request.args)
        wanted = request.args.get("delivery_report")
        if wanted is not None and wanted not in reading.REPORTS:
            raise wrong(1822, f"delivery_report: any of {', '.join(reading.REPORTS)}")
        statuses = None if wanted is None else reading.REPORTS[wanted]
        same = {name: request.args.get(name) for name in ("channel", "source")}
        found = []
        for message in world.messages.values():
            row = view(message)
            if (
                message.deleted_at is None
                and since <= message.created_at < until
                and (statuses is None or message.status in statuses)
                and request.args.get("country_iso") in (None, row["countryIso"])
                and all(value in (None, row[name]) for name, value in same.items())
            ):
                found.append(message)
        return page(found)

    @call("/reports/campaigns/<campaign_id>", "GET")
    def campaign_reports(campaign_id: str) -> dict[str, Any]:
        messages = campaign_messages(campaign_id)
        return page([each for each in messages if each.deleted_at is None])

    def page(found: list[SimulatedMessage]) -> dict[str, Any]:
        """A page, newest first. A cursor names the last row that was seen, so what is sent
        meanwhile moves nothing."""
        text = request.args.get("limit", str(MOST_ROWS))
        if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST_ROWS):
            raise wrong(1826, f"limit must be from 1 to {MOST_ROWS}")
        limit = int(text)
        found.sort(key=lambda message: -message.number)
        after = request.args.get("next")
        if after is not None:
            if not (after.startswith("c") and after[1:].isdecimal()):
                raise wrong(1827, "next is no cursor")
            found = [message for message in found if message.number < int(after[1:])]
        rows = found[:limit]
        return {
            "info": {"totalPhoneNumbers": len(found)},
            "data": [view(message) for message in rows],
            "paging": {
                "next": f"c{rows[-1].number}" if len(found) > limit else None,
                "previous": None,
                "size": len(rows),
            },
        }

    return app


def serve(simulator: Simulator, host: str, port: int) -> Callable[[], None]:
    """Start the API and what happens by itself; returns what ends them.

    :raises OSError: if it cannot listen there.
    """
    return running.serve(simulator, create_api(simulator), host, port)


def _answer(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")
