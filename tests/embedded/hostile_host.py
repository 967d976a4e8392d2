"""A shop written with Flask that lets nobody in without a session and a CSRF token, and that has
ideas of its own about errors, paths, JSON and sessions; and what its own tests ask of it."""

from __future__ import annotations

from typing import Any

from flask import Flask, abort, g, jsonify, redirect, request, session, url_for
from flask.json.provider import DefaultJSONProvider
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect, generate_csrf
from werkzeug.routing import BaseConverter
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

ROOT = "/shop"


class _Upper(BaseConverter):
    regex = "[A-Z]+"


class _Json(DefaultJSONProvider):
    mimetype = "application/vnd.shop+json"
    compact = False


class _Session(SecureCookieSessionInterface):
    def get_cookie_name(self, app: Flask) -> str:
        return "zimsend_session"  # of all names


def shop() -> Flask:
    app = Flask("shop")
    app.config.update(
        SECRET_KEY="of the shop",
        APPLICATION_ROOT=ROOT,
        SERVER_NAME="shop.example",
        MAX_CONTENT_LENGTH=1_000,
        PREFERRED_URL_SCHEME="https",
        TRAP_HTTP_EXCEPTIONS=False,
    )
    app.json = _Json(app)
    app.session_interface = _Session()
    app.url_map.converters["anytext"] = _Upper
    app.url_map.strict_slashes = False
    CSRFProtect(app)

    @app.before_request
    def wall() -> Response | None:
        g.visits = session["visits"] = session.get("visits", 0) + 1
        if request.endpoint not in ("sign_in", "static") and "user" not in session:
            return redirect(url_for("sign_in"))
        return None

    @app.after_request
    def mark(answer: Any) -> Any:
        answer.headers["X-Shop"] = "shop"
        answer.headers["Content-Security-Policy"] = "default-src https:"
        answer.set_cookie("seen", "1")
        return answer

    @app.errorhandler(Exception)
    def sorry(error: Exception) -> tuple[str, int]:
        return f"sorry: {type(error).__name__}", 200  # of all things

    for code in (400, 404, 405, 500):
        app.register_error_handler(code, lambda error: (f"the shop's {error.code}", error.code))

    @app.route("/sign-in", methods=["GET", "POST"])
    def sign_in() -> str:
        if request.method == "POST":
            session["user"] = request.form["user"]
        return generate_csrf()

    @app.get("/")
    @app.get("/messages")
    def messages() -> str:
        return f"the shop's {request.path} for {session['user']}, {url_for('messages')}"

    @app.get("/v1/sms/<anytext:name>")
    def own_v1(name: str) -> Any:
        return jsonify(name=name)

    @app.post("/webhooks/zimsend")
    def own_webhook() -> str:
        return "the shop's own"

    @app.get("/broken")
    def broken() -> str:
        raise KeyError("broken")

    @app.get("/smsx")
    def nearly() -> str:
        return "no prefix"

    return app


def authorize() -> bool:
    """As its staff is let in."""
    if session.get("user") == "nobody":
        abort(redirect(url_for("sign_in")))
    return session.get("user") == "boss"


def visit(app: Flask) -> list[tuple[str, int, str, list[tuple[str, str]]]]:
    """What the shop's own tests ask of it, and what they get."""
    client = app.test_client()
    got: list[TestResponse] = [client.get("/"), client.post("/webhooks/zimsend")]
    token = client.get("/sign-in").text
    for path in ("/sign-in", "/webhooks/zimsend"):
        got.append(client.post(path, data={"user": "boss", "csrf_token": token}))
        got.append(client.post(path, data={"user": "boss"}))
    for path in ("/", "/messages", "/v1/sms/ABC", "/v1/sms/abc", "/nowhere", "/broken", "/smsx"):
        got.append(client.get(path))
        got.append(client.delete(path, headers={"X-CSRFToken": token}))
    return [(a.request.path, a.status_code, _tokenless(a), _headers(a)) for a in got]


def _tokenless(answer: TestResponse) -> str:
    return "" if answer.request.path == "/sign-in" else answer.text


def _headers(answer: TestResponse) -> list[tuple[str, str]]:
    """But for what a signature or a random number is in."""
    return sorted((n, v if n != "Set-Cookie" else v.partition("=")[0]) for n, v in answer.headers)
