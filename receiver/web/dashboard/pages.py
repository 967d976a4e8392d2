"""What every page has: the blueprint, who is let in, headers, and the way of a template."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jinja2
from flask import Blueprint, Response, current_app, g, make_response, request, url_for
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import Forbidden, HTTPException, NotFound
from werkzeug.http import HTTP_STATUS_CODES

from receiver import ids
from receiver.calling import call
from receiver.errors import StoreUnavailable
from receiver.parts import Receiver, parts
from receiver.visible import visible
from receiver.web.answers import RETRY_AFTER
from receiver.web.dashboard.assets import served_as
from receiver.web.dashboard.languages import CODES, Language
from receiver.web.dashboard.throttle import Throttle
from receiver.web.dashboard.tokens import Tokens, keys_of

log = logging.getLogger(__name__)

blueprint = Blueprint("dashboard", __name__)

#: Pages by the names of their endpoints, in the order of the navigation.
NAVIGATION = ("overview", "messages", "events", "failures", "live", "losses", "settings")
#: What one may see without having signed in.
_PUBLIC = {"dashboard.asset", "dashboard.sign_in", "dashboard.try_password", "dashboard.try_link"}
#: What there is of it only where a password lets in.
_OF_THE_PASSWORD = (_PUBLIC - {"dashboard.asset"}) | {"dashboard.sign_out"}
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
#: Cookies. A host that this is built into has its own.
SESSION, LANGUAGE, NOTICE = "zimsend_session", "zimsend_language", "zimsend_notice"
_YEAR = 365 * 86_400
#: Bytes of a form.
_LARGEST_FORM = 64 * 1024

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Door:
    """What lets people in, of one application.

    :param authorize: where the program around says who is let in, instead of the password.
    """

    tokens: Tokens
    throttle: Throttle
    authorize: Callable[[], bool] | None


@blueprint.record
def _begin(state: BlueprintSetupState) -> None:
    receiver: Receiver = state.app.extensions["receiver"]
    config = receiver.config
    state.app.extensions["receiver.dashboard"] = Door(
        Tokens(config, receiver.now),
        Throttle(receiver.store, keys_of(config)[0]),
        None if receiver.host is None else receiver.host.authorize,
    )


def door() -> Door:
    found: Door = current_app.extensions["receiver.dashboard"]
    return found


# --- who is let in


@blueprint.before_request
def _let_in() -> Response | None:
    request.max_content_length = _LARGEST_FORM
    if request.method not in _SAFE_METHODS and not _is_from_here():
        raise Forbidden("cross-site")
    if door().authorize is not None:
        if request.endpoint != "dashboard.asset" and not is_signed_in():
            raise Forbidden("not authorized")
        if request.endpoint in _OF_THE_PASSWORD:
            raise NotFound
    elif request.endpoint not in _PUBLIC:
        if not is_signed_in():
            return redirect(url_for(".sign_in", to=here() if request.method == "GET" else None))
        known = request.environ.get("receiver.known")
        if known is not None:  # the event loop is patient with those who are let in
            known()
    if request.method == "GET" and request.args.get("lang") in CODES:
        answer = redirect(here(lang=None))
        set_cookie(answer, LANGUAGE, request.args["lang"], _YEAR)
        return answer
    return None


def _is_from_here() -> bool:
    """Whether a page of this very service has sent a request: as Datasette and Go see it."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    try:
        origin = urlsplit(request.headers.get("Origin", ""))
        host = urlsplit(f"{origin.scheme}://{request.host}")
        usual = {"http": 80, "https": 443}.get(origin.scheme)
        return bool(origin.hostname) and (origin.hostname, origin.port or usual) == (
            host.hostname,
            host.port or usual,
        )
    except ValueError:
        return False


def is_signed_in() -> bool:
    authorize = door().authorize
    if authorize is None:
        return door().tokens.is_session(request.cookies.get(SESSION, ""))
    if "dashboard_authorized" not in g:  # it may ask a database
        g.dashboard_authorized = False  # if it raises
        g.dashboard_authorized = authorize() is True
    return bool(g.dashboard_authorized)


def set_cookie(answer: Response, name: str, value: str | None, seconds: int) -> None:
    """Set one of the dashboard's cookies; `None` takes it away."""
    public = parts().config.public_url or ""
    answer.set_cookie(
        name,
        value or "",
        max_age=seconds if value else 0,
        path=url_for(".overview"),
        secure=request.is_secure or public.startswith("https://"),
        httponly=True,
        samesite="Lax",
    )


@blueprint.after_request
def _guarded(answer: Response) -> Response:
    answer.headers.extend(
        (name, value) for name, value in _HEADERS.items() if name not in answer.headers
    )
    if "Cache-Control" not in answer.headers:
        answer.headers["Cache-Control"] = "no-store"
    return answer


# --- answers


def page(template: str, status: int = 200, **context: Any) -> Response:
    """A page of a template in the reader's language."""
    notice = door().tokens.read_notice(request.cookies.get(NOTICE, ""))
    text = (
        _templates()
        .get_template(template)
        .render(**_tools(), notice=notice and tell(*notice), **context)
    )
    answer = Response(text.encode("utf-8", "replace"), status, content_type=_HTML)
    if notice is not None:
        set_cookie(answer, NOTICE, None, 0)
    answer.vary.update(["Accept-Language", "Cookie"])
    return answer


_HTML = "text/html; charset=utf-8"


def redirect(to: str, status: int = 303) -> Response:
    return Response(b"", status, headers={"Location": to})


def done(key: str, to: str | None = None, **values: Any) -> Response:
    """Back to where one came from, with a word of what was done.

    :param key: of the catalogue; with `n` among the values, its two forms for numbers.
    :param to: by default what the form names as `back`.
    """
    answer = redirect(to or back())
    set_cookie(answer, NOTICE, door().tokens.notice(key, values), 60)
    return answer


def tell(key: str, values: Mapping[str, Any]) -> str:
    """A string of the catalogue, with a number's form if `n` is among the values."""
    if "n" not in values:
        return language().text(key, **values)
    count = values["n"]
    return language().plural(key, count, **{k: v for k, v in values.items() if k != "n"})


def back() -> str:
    """The page of this dashboard that a form or a link came from."""
    to = request.values.get("back", "")
    return to if is_local(to) else url_for(".overview")


def is_local(to: str) -> bool:
    """Whether an address is of this very dashboard, for a browser too."""
    root = url_for(".overview")
    plain = to.startswith(root) and not to.startswith("//") and "\\" not in to
    return plain and to.isascii() and to.isprintable()


def here(**changed: str | None) -> str:
    """This page's address with other parameters; `None` takes one away."""
    pairs = [(k, v) for k, v in request.args.items(multi=True) if k not in changed and v]
    pairs += [(name, value) for name, value in changed.items() if value is not None]
    path = (
        quote(request.script_root + request.path, safe="/")
        if request.url_rule is None
        else url_for(request.endpoint or ".overview", **(request.view_args or {}))
    )
    return path + (f"?{urlencode(pairs)}" if pairs else "")


def link(endpoint: str, **values: Any) -> str:
    """The address of a page of the dashboard."""
    return url_for(f"dashboard.{endpoint}", **values)


def id_link(endpoint: str, key: str) -> str:
    """The address of the page of a message or an event, whatever its id holds.

    A browser takes dots that stand alone for folders, and slashes alone are no part of a path: so
    these go among the parameters.
    """
    written = ids.written(key)
    if not written.strip("./"):
        return link(endpoint, key="-", id=written)
    return link(endpoint, key="-").removesuffix("-") + quote(written, safe="")


def asked_id(key: str) -> str:
    """The id that a page is asked for: see `id_link`."""
    return request.args.get("id", key)


# --- languages and templates


def language() -> Language:
    if "dashboard_language" not in g:
        chosen = request.cookies.get(LANGUAGE)
        if chosen not in CODES:
            chosen = request.accept_languages.best_match(CODES, CODES[0])
        g.dashboard_language = Language(str(chosen), parts().config.timezone)
    found: Language = g.dashboard_language
    return found


@cache
def _templates() -> jinja2.Environment:
    """Of their own, so that no host's templates, filters or settings get in."""
    folder = Path(__file__).with_name("templates")
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def _has_page(name: str) -> bool:
    return f"dashboard.{name}" in current_app.view_functions


def _tools() -> dict[str, Any]:
    """What every template may use."""
    spoken, now = language(), parts().now()
    return {
        "t": spoken.text,
        "count": spoken.plural,
        "tell": tell,
        "number": spoken.number,
        "percent": spoken.percent,
        "time": spoken.time,
        "date": spoken.date,
        "day": spoken.day,
        "span": spoken.span,
        "bytes": spoken.bytes,
        "ago": lambda time_us: spoken.ago(time_us, now),
        "known": spoken.has,
        "lang": spoken.code,
        "languages": CODES,
        "asset": lambda name: link("asset", name=served_as()[name]),
        "link": link,
        "id_link": id_link,
        "written": ids.written,
        "visible": visible,
        "call": call,
        "here": here,
        "at": (request.endpoint or "").removeprefix("dashboard."),
        "navigation": list(filter(_has_page, NAVIGATION)),
        "has_page": _has_page,
        "signed_in": is_signed_in(),
        "may_sign_out": door().authorize is None,
        "config": parts().config,
    }


# --- errors


@blueprint.errorhandler(404)  # by number too, or the application's own come first
@blueprint.errorhandler(405)
@blueprint.errorhandler(HTTPException)
def _refused(error: HTTPException) -> Response:
    """With what it tells a browser beside its page, as how to sign in."""
    status = error.code or 500
    if error.response is not None or status < 400:
        return make_response(error.get_response())
    answer = _failed_page(status)
    answer.headers.extend((name, v) for name, v in error.get_headers() if name != "Content-Type")
    return answer


@blueprint.errorhandler(StoreUnavailable)
def _unavailable(error: StoreUnavailable) -> Response:
    answer = _failed_page(503)
    answer.headers["Retry-After"] = str(RETRY_AFTER)
    return answer


@blueprint.errorhandler(Exception)
def _failed(error: Exception) -> Response:
    log.error("a page failed by a defect of this program", exc_info=error)
    return _failed_page(500)


def _failed_page(status: int) -> Response:
    known = language().has(f"error.{status}")
    return page(
        "error.html",
        status,
        code=status,
        title=HTTP_STATUS_CODES.get(status, ""),
        told=f"error.{status}" if known else "error.other",
    )
