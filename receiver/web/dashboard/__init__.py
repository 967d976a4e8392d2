"""The dashboard: what became of each SMS, in a browser. On where `ADMIN_PASSWORD` is set, or where
the program around says who may see it.

How to add a page:

1. A module here with its views: `@blueprint.get("/things") def things(): return page("things.html",
   rows=…)`, with `blueprint` and `page` of `pages.py`. Only who has signed in gets there. Name the
   module in `PAGES` below.
2. A template in `templates/` that begins with `{% extends "base.html" %}` and fills `title` and
   `content`. All templates have what `_tools` in `pages.py` lists (`t`, `count`, `number`, `time`,
   `ago`, `link`, `id_link`, …), and the macros of `macros.html`. No word of a language stands in a
   template. What strangers wrote goes through `m.foreign(…)`.
3. Its strings in `strings/en.json` and `strings/fr.json`, sorted, with the page's name in front of
   the keys. `nav.NAME` is its title in the navigation, which shows what `NAVIGATION` in `pages.py`
   names as soon as there is an endpoint of that name.
4. What it shows comes from the store by an index; no page counts rows.
5. What changes something is a POST route: `m.act(link("…"), t("…"), {"back": here()})` in the
   template, and `return done("things.done", n=count)` in the view: back to where one was, with a
   word of what was done (`things.done.one`, `things.done.many`). That a request comes from this
   site is seen to for all of them.
6. Regions that stay up to date: `{% block main %} data-poll="5"{% endblock %}` and, around each
   part, an element with `data-region` and an `id`; the page must show the same without a script.
7. `tests/web/dashboard/every_page.py` lists all pages in `PAGES`: what every page must keep to is
   tried there, and in a browser, for each of them.
"""

from __future__ import annotations

from flask import Blueprint, Response, abort

from receiver.parts import Receiver
from receiver.web.dashboard import (
    events,
    failures,
    live,
    losses,
    messages,
    overview,
    pages,
    quarantine,
    reconciling,
    settings,
    signing_in,
)
from receiver.web.dashboard.assets import assets

#: The modules with pages; each adds its views to the blueprint.
PAGES = (
    overview,
    messages,
    events,
    failures,
    live,
    losses,
    quarantine,
    reconciling,
    settings,
    signing_in,
)

_FOR_EVER = "public, max-age=31536000, immutable"

off = Blueprint("dashboard", __name__)


def routes(receiver: Receiver) -> Blueprint:
    """The dashboard, or where it is off one sentence that says so."""
    guarded = receiver.host is not None and receiver.host.authorize is not None
    return pages.blueprint if guarded or receiver.config.admin_password else off


@off.get("/")
def overview_is_off() -> Response:
    return Response(
        "zimsend-receiver is running, and its dashboard is off: set ADMIN_PASSWORD and SECRET_KEY "
        "to have it here; /readyz tells how the service is.\n",
        content_type="text/plain; charset=utf-8",
    )


@pages.blueprint.get("/assets/<name>")
def asset(name: str) -> Response:
    """A file that never changes under its name."""
    found = assets().get(name)
    if found is None:
        abort(404)
    headers = {"Cache-Control": _FOR_EVER}
    return Response(found.body, headers=headers, content_type=found.content_type)
