"""Signing in by the password or by the link that `make run` prints, and signing out."""

from __future__ import annotations

from flask import Response, request, url_for

from receiver.parts import parts
from receiver.times import SECOND
from receiver.web.dashboard.pages import (
    SESSION,
    blueprint,
    door,
    is_local,
    is_signed_in,
    page,
    redirect,
    set_cookie,
)
from receiver.web.dashboard.tokens import LINK
from receiver.web.dashboard.tokens import SESSION as HOW_LONG


@blueprint.get("/sign-in")
def sign_in() -> Response:
    """The form; with a link's token, a button."""
    if is_signed_in():
        return redirect(_to())
    token = request.args.get("link")
    if token is None:
        return _form(200)
    name = door().tokens.read_link(token)
    usable = name is not None and parts().store.turn(_spent(name)) is None
    return page("link.html", 200 if usable else 410, token=token if usable else None)


@blueprint.post("/sign-in")
def try_password() -> Response:
    """Let in whoever knows the password, if they do not try too often."""
    tokens = door().tokens
    age = tokens.form_age(request.form.get("form", ""))
    wait = door().throttle.wait(request.remote_addr, age, parts().now())
    if wait:
        answer = _form(429, wait=wait)
        answer.headers["Retry-After"] = str(wait)
        return answer
    if not tokens.opens(request.form.get("password", "")):
        return _form(401)
    return _signed_in(_to())


@blueprint.post("/sign-in/link")
def try_link() -> Response:
    """Let in whoever has a link, once."""
    receiver = parts()
    name = door().tokens.read_link(request.form.get("link", ""))
    # The turn lasts for as long as the link could be read, by a clock that is wrong too.
    until = receiver.now() + 2 * LINK * SECOND
    if name is None or not receiver.store.claim_turn(_spent(name), receiver.now(), until):
        return page("link.html", 410, token=None)
    return _signed_in(url_for(".overview"))


@blueprint.post("/sign-out")
def sign_out() -> Response:
    answer = redirect(url_for(".sign_in"))
    set_cookie(answer, SESSION, None, 0)
    return answer


def _form(status: int, wait: int = 0) -> Response:
    return page(
        "sign_in.html",
        status,
        wrong=status == 401,
        wait=wait,
        form=door().tokens.form(),
        to=_to(),
    )


def _signed_in(to: str) -> Response:
    answer = redirect(to)
    set_cookie(answer, SESSION, door().tokens.session(), HOW_LONG)
    return answer


def _to() -> str:
    to = request.values.get("to", "")
    return to if is_local(to) else url_for(".overview")


def _spent(name: str) -> str:
    return f"asked:link {name}"  # expiry takes away what is old of these
