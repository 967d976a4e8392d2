"""Flask's errors, in the shapes of `answers`: every error leaves as one, and none with what is
inside it."""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from receiver.parts import parts
from receiver.providers import PROVIDERS
from receiver.web.answers import Answer, api_error, error_answer, in_api, refusal
from receiver.web.v1 import ApiError, authenticate


def response(answer: Answer) -> Response:
    """An answer as Flask's response."""
    return Response(answer.body, answer.status, headers=answer.headers)


def register_errors(app: Flask) -> None:
    """Let every error leave as an answer that its sender can read."""

    @app.after_request
    def in_order(answer: Response) -> Response:
        """The framework lists what is allowed in another order in each process."""
        if "Allow" in answer.headers:
            answer.headers["Allow"] = ", ".join(sorted(answer.allow))
        return answer

    @app.errorhandler(HTTPException)
    def refused_by_the_framework(error: HTTPException) -> Response:
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        return response(
            error_answer(request.path, error.code or 500, error.description or "", headers)
        )

    @app.errorhandler(404)
    @app.errorhandler(405)
    def unknown_call(error: HTTPException) -> Response:
        """Under `/v1`, only who is let in is told that there is no such call."""
        if in_api(request.path):
            try:
                authenticate()
            except ApiError as refused:
                return api_refused(refused)
        elif error.code == 404:
            doors = (provider.door for provider in PROVIDERS.values())
            signed = any(d and d.header and d.header in request.headers for d in doors)
            parts(app).receiving.refusals.path(request.path, signed=signed)
        return refused_by_the_framework(error)

    @app.errorhandler(ApiError)
    def api_refused(error: ApiError) -> Response:
        return response(
            api_error(error.status, error.code, error.message, error.headers, error.more)
        )

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return response(refusal(request.path, error))
