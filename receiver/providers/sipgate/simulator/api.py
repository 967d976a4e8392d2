"""The simulated sipgate's API over HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from receiver.providers.simulating import running
from receiver.providers.sipgate.simulator import reading
from receiver.providers.sipgate.simulator.reading import ApiRefusal
from receiver.providers.sipgate.simulator.running import Simulator

USER = "w0"


def create_api(simulator: Simulator) -> Flask:
    """The calls that this service makes, `GET /truth` and `GET /clock`."""
    app = Flask("sipgate-simulator", static_folder=None)
    world = simulator.world

    def call(rule: str, method: str = "GET") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """One call of the API: authenticated, counted, alone in the world while it runs."""

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            def view(**arguments: Any) -> Response:
                with simulator.lock:
                    world.pass_time(simulator.now())
                    if world.is_out:
                        return _hang_up()
                    simulator.admit(dict(request.headers))
                    return _answer(function(**arguments))

            app.add_url_rule(rule, f"{method} {rule}", view, methods=[method])
            return function

        return declare

    running.add_truth(app, simulator)

    @app.errorhandler(ApiRefusal)
    def refused(error: ApiRefusal) -> Response:
        body = json.dumps({"message": error.why}) if error.why else ""
        return Response(body, error.status, error.headers, mimetype="application/json")

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        return Response("", error.code or 500)

    @call("/sessions/sms", "POST")
    def send() -> Response | None:
        asked = reading.read_send(request, world.extensions, world.now)
        if world.loses_request():
            return _hang_up()
        if world.balance is not None:
            if world.balance < 1:
                raise ApiRefusal(402, "not enough balance")
            world.balance -= 1
        return _hang_up() if world.send(*asked).answer_lost else None

    @call("/authorization/userinfo")
    def userinfo() -> Any:
        return {"sub": USER, "domain": "sipgate.de", "masterSipId": "1000000", "locale": "de_DE"}

    @call("/<user_id>/sms")
    def extensions(user_id: str) -> Any:
        _is_user(user_id)
        rows = [{"id": one, "alias": f"SMS {one}", "callerId": ""} for one in world.extensions]
        return {"items": rows}

    @call("/<user_id>/sms/<sms_id>/callerids")
    def caller_ids(user_id: str, sms_id: str) -> Any:
        _is_user(user_id)
        if sms_id not in world.extensions:
            raise ApiRefusal(404, "")
        number = {"id": 1, "phonenumber": "sipgate", "verified": True, "defaultNumber": True}
        return {"items": [number]}

    @call("/account")
    def account() -> Any:
        return {"company": "Simulated", "historyLifeTime": world.history_life_time}

    @call("/history")
    def history() -> Any:
        wanted = reading.read_filter(request.args)
        found = [sms for sms in world.entries() if wanted.takes(sms)]
        return world.page(found, wanted.offset, wanted.limit)

    @call("/history/<entry_id>")
    def entry(entry_id: str) -> Any:
        sms = world.find(entry_id)
        if sms is None:
            raise ApiRefusal(404, "")
        return world.view(sms)

    return app


def serve(simulator: Simulator, host: str, port: int) -> Callable[[], None]:
    """Start the API and what happens by itself; returns what ends them.

    :raises OSError: if it cannot listen there.
    """
    return running.serve(simulator, create_api(simulator), host, port)


def _is_user(user_id: str) -> None:
    if user_id != USER:
        raise ApiRefusal(403, "")


def _hang_up() -> Response:
    """End the connection, so that no answer comes; a server without one answers 504."""
    connection = request.environ.get("werkzeug.socket")
    if connection is not None:
        connection.shutdown(socket.SHUT_RDWR)
    return Response(status=504)


def _answer(body: Any) -> Response:
    if isinstance(body, Response):
        return body
    if body is None:
        return Response(status=204)
    return Response(json.dumps(body), mimetype="application/json")
