"""The receiver in a Flask application: nothing of either gets into the other."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

import psycopg
import pytest
from flask import Flask, Request, Response, current_app, request
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import HTTPException, TooManyRequests, Unauthorized
from werkzeug.middleware.proxy_fix import ProxyFix

from receiver import Event
from receiver.flask import ZimSendReceiver
from receiver.parts import parts
from receiver.service import create_app
from receiver.store import Selection
from tests.embedded import hostile_host
from tests.embedded.conftest import SETTINGS, report
from tests.embedded.hostile_host import ROOT
from tests.postgres import Databases
from tests.server import eventually
from tests.web.front.test_servers import HEADERS, KEYS, TABLE, TOKEN, Ask, Got, in_process

Mount = Callable[..., FlaskClient]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """`mount(app, …)` puts a receiver into an application, and returns a visitor of that."""
    made = []

    def into(app: Flask, **options: Any) -> FlaskClient:
        app.root_path = str(tmp_path)
        settings = SETTINGS | options.pop("settings", {})
        receiver = options.pop("receiver", None) or ZimSendReceiver(settings=settings, **options)
        made.append(embedded := receiver.init_app(app))
        parts(embedded.application).store.migrate()
        return app.test_client()

    yield into
    for embedded in made:
        embedded.close()


# --- nothing of ours in the host


def test_the_hosts_own_tests_see_no_difference(mount: Mount) -> None:
    before, after = hostile_host.shop(), hostile_host.shop()
    client = mount(after, settings={"ADMIN_PASSWORD": "horse", "SECRET_KEY": "k" * 32})
    assert client.get("/sms/sign-in").status_code == 200
    assert hostile_host.visit(after) == hostile_host.visit(before)
    with before.app_context(), after.app_context():
        for name in ("blueprints", "view_functions", "before_request_funcs", "error_handler_spec"):
            assert sorted(map(str, getattr(after, name))) == sorted(map(str, getattr(before, name)))
    assert sorted(map(str, after.url_map.iter_rules())) == sorted(
        map(str, before.url_map.iter_rules())
    )
    assert after.config == before.config | {"SECRET_KEY": after.config["SECRET_KEY"]}
    assert after.jinja_env.globals.keys() == before.jinja_env.globals.keys()


def test_a_test_client_of_the_hosts_is_left_in_no_context_of_ours(mount: Mount) -> None:
    app = hostile_host.shop()
    client = mount(app)
    with client:
        client.get("/sms/healthz")
        assert not current_app
        client.get("/sign-in")
        assert current_app._get_current_object() is app  # type: ignore[attr-defined]


# --- nothing of the host's in ours


def below(app: Flask, ask: Ask) -> Got:
    """The same request below the prefix, where the host itself is below a path."""
    path, _, query = ask.target.partition("?")
    headers = dict(ask.headers) | ({"Transfer-Encoding": "chunked"} if ask.chunked else {})
    answer = app.test_client().open(
        base_url=f"http://localhost{ROOT}",
        path="/",
        method=ask.method,
        data=ask.body,
        headers=headers,
        environ_overrides={
            "wsgi.input_terminated": True,
            "PATH_INFO": "/sms" + unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
        },
    )
    got = {name: answer.headers.get(name) for name in HEADERS}
    assert "X-Shop" not in answer.headers
    assert "Set-Cookie" not in answer.headers
    return Got(answer.status_code, got, re.sub(rb'("received_at": )"[^"]*"', rb"\1", answer.data))


def test_every_request_is_answered_as_by_the_service_alone(
    mount: Mount, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = SETTINGS | {
        "SMSCX_WEBHOOK_TOKEN": TOKEN,
        "ZIMSEND_API_KEY": KEYS["X-API-Key"],
        "ZIMSEND_CLIENT_ID": KEYS["X-Client-ID"],
    }
    folder = tmp_path_factory.mktemp("alone")
    alone = create_app(
        {
            **settings,
            "DATABASE_URL": f"sqlite:///{folder}/receiver.db",
            "HANDLERS": "handlers.log",
            "EMBEDDED_WORKER": "0",
        }
    )
    parts(alone).store.migrate()
    app = hostile_host.shop()
    receiver = ZimSendReceiver(settings=settings)
    receiver.on("*", name="log")(lambda event: None)
    mount(app, receiver=receiver)
    different = {}
    for name, ask in TABLE.items():
        wanted, got = in_process(alone, ask), below(app, ask)
        if wanted != got:
            different[name] = (wanted, got)
    parts(alone).store.close()
    assert different == {}


def test_a_webhook_needs_no_session_and_no_token_and_is_handled_in_the_hosts_context(
    mount: Mount,
) -> None:
    app = hostile_host.shop()
    receiver = ZimSendReceiver(settings=SETTINGS, embedded_worker=True)
    client = mount(app, receiver=receiver)
    seen: list[tuple[Flask, str | None]] = []

    @receiver.on("sms.failed")
    def note(event: Event) -> None:
        seen.append((current_app._get_current_object(), event.error_code))  # type: ignore[attr-defined]

    assert report(client, "failed", "m1", at="/sms/webhooks/zimsend").status_code == 200
    eventually(lambda: seen)
    assert seen == [(app, "NO_CREDIT")]


# --- the prefix


def plain() -> Flask:
    app = Flask("plain")

    @app.route("/", defaults={"path": ""}, methods=["GET", "POST"])
    @app.route("/<path:path>", methods=["GET", "POST"])
    def everything(path: str) -> str:
        return "the host's"

    return app


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("/sms/healthz", True),
        ("/sms//healthz/", True),
        ("//sms/healthz", True),
        ("/sms", True),
        ("/sms/", True),
        ("/smsx", False),
        ("/smsx/healthz", False),
        ("/SMS/healthz", False),
        ("/sms.html", False),
        ("/a/sms/healthz", False),
        ("/", False),
        ("/healthz", False),
    ],
)
def test_only_what_is_below_the_prefix_is_ours(mount: Mount, path: str, ours: bool) -> None:
    client = mount(plain(), prefix="/sms/")
    answer = client.get("/", environ_overrides={"PATH_INFO": path})
    assert (answer.text != "the host's") is ours


@pytest.mark.parametrize("prefix", ["", "/", "sms", "//sms", "/sms//x", "/s ms", "/é", "/a?b"])
def test_a_prefix_that_cannot_be_one_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="write a path like '/sms'"):
        ZimSendReceiver(prefix=prefix)


def test_two_have_prefixes_commands_and_databases_of_their_own(mount: Mount) -> None:
    app = plain()
    client = mount(app, prefix="/sms", settings={"DATABASE_URL": "sqlite:///one.db"})
    for prefix in ("/sms", "/sms/more", "/sms/"):
        with pytest.raises(ValueError, match="another prefix"):
            mount(app, prefix=prefix)
    with pytest.raises(ValueError, match="another name="):
        mount(app, prefix="/other")
    mount(app, prefix="/other", name="other", settings={"DATABASE_URL": "sqlite:///two.db"})
    assert report(client, "sent", "m1", at="/other/webhooks/zimsend").status_code == 200
    runner = app.test_cli_runner()
    counts = [
        len(runner.invoke(args=[name, "events", "list", "--format", "jsonl"]).output.splitlines())
        for name in ("zimsend", "other")
    ]
    assert counts == [0, 1]


def test_each_of_two_names_its_own_commands(tmp_path: Path) -> None:
    app = plain()
    app.root_path = str(tmp_path)
    for name in ("zimsend", "other"):
        settings = SETTINGS | {"DATABASE_URL": f"sqlite:///{name}.db"}
        ZimSendReceiver(app, prefix=f"/{name}", name=name, settings=settings)
    for name in ("zimsend", "other", "zimsend"):
        failing = app.test_client().get(f"/{name}/readyz").get_json()["failing"]
        assert failing["store"].endswith(f"run `flask {name} migrate`")
    runner = app.test_cli_runner()
    assert runner.invoke(args=["other", "migrate"]).exit_code == 0
    told = runner.invoke(args=["other", "doctor"]).stdout
    assert "all are understood, from the settings" in told
    assert "nothing has ever run the handlers. Start `flask other work`\n" in told


@pytest.mark.parametrize("fixed_first", [True, False])
def test_proxies_may_be_told_of_before_and_after(mount: Mount, fixed_first: bool) -> None:
    app = plain()
    if fixed_first:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)  # type: ignore[method-assign]
    settings = {"ADMIN_PASSWORD": "horse", "SECRET_KEY": "k" * 32}
    mount(app, settings=settings)
    if not fixed_first:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)  # type: ignore[method-assign]
    answer = app.test_client().get("/sms/", headers={"X-Forwarded-Prefix": "/shop"})
    # What is mounted outside of it has not heard of the prefix.
    root = "/sms" if fixed_first else "/shop/sms"
    assert answer.headers["Location"] == f"{root}/sign-in?to={root}/"


def test_one_receiver_may_be_in_several_applications(mount: Mount, tmp_path: Path) -> None:
    """As where a factory makes one for each test."""
    receiver = ZimSendReceiver(settings=SETTINGS, embedded_worker=True)
    seen: list[str] = []
    receiver.on("*", name="note")(lambda event: seen.append(current_app.name))
    first, second = Flask("first"), Flask("second")
    clients = [mount(app, receiver=receiver) for app in (first, second)]
    assert report(clients[1], "sent", "m1", at="/sms/webhooks/zimsend").status_code == 200
    eventually(lambda: seen == ["second"])


def test_a_postgresql_is_shared_with_the_host(mount: Mount, databases: Databases) -> None:
    """Whose tables have the names that ours have, and keep them."""
    url = databases.create(empty=True)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE events (party text)")
        connection.execute("INSERT INTO events VALUES ('birthday')")
        client = mount(plain(), settings={"DATABASE_URL": url})
        assert report(client, "sent", "m1", at="/sms/webhooks/zimsend").status_code == 200
        assert client.get("/sms/readyz").status_code == 200
        assert connection.execute("SELECT party FROM events").fetchall() == [("birthday",)]
        assert connection.execute("SELECT count(*) FROM zimsend.events").fetchone() == (1,)


# --- the dashboard


def test_the_host_says_who_may_see_the_dashboard(mount: Mount) -> None:
    app = hostile_host.shop()
    client = mount(app, authorize=hostile_host.authorize)
    report(client, "failed", "m1", at="/sms/webhooks/zimsend")

    def be(user: str) -> None:
        with client.session_transaction(base_url="https://shop.example/shop") as session:
            session["user"] = user

    base = {"base_url": "https://shop.example/shop"}
    assert client.get("/sms/", **base).status_code == 403
    be("nobody")
    answer = client.get("/sms/messages", **base)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/shop/sign-in")
    be("guest")
    assert client.get("/sms/messages", **base).status_code == 403
    be("boss")
    page = client.get("/sms/messages", **base)
    assert page.status_code == 200
    assert "m1" in page.text
    assert "sign-out" not in page.text
    for method, path in (("GET", "sign-in"), ("POST", "sign-in"), ("POST", "sign-out")):
        got = client.open(f"/sms/{path}", method=method, headers=SAME_ORIGIN, **base)
        assert got.status_code == 404


SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize("answer", [None, "yes", 1, KeyError("user")])
def test_nothing_but_true_opens_the_dashboard(mount: Mount, answer: object) -> None:
    def authorize() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    got = mount(plain(), authorize=authorize).get("/sms/messages")
    assert got.status_code == (500 if isinstance(answer, Exception) else 403)
    assert "nav" not in got.text.replace("nav.", "")


@pytest.mark.parametrize(
    ("answer", "header"),
    [
        (
            Unauthorized(www_authenticate=WWWAuthenticate("basic", {"realm": "x"})),
            "WWW-Authenticate",
        ),
        (TooManyRequests(retry_after=7), "Retry-After"),
        (Unauthorized(response=Response("sign in", 401, {"X-Way": "door"})), "X-Way"),
        (HTTPException(response=Response("sign in", 401, {"X-Way": "door"})), "X-Way"),
    ],
)
def test_what_the_host_raises_is_the_answer(
    mount: Mount, answer: HTTPException, header: str
) -> None:
    def authorize() -> bool:
        raise answer

    got = mount(plain(), authorize=authorize).get("/sms/messages")
    assert got.status_code == answer.get_response().status_code
    assert got.headers.get_all(header) == answer.get_response().headers.get_all(header)
    assert (got.text == "sign in") is (answer.response is not None)
    assert got.headers["Cache-Control"] == "no-store"


def test_what_changes_something_comes_from_the_dashboard_itself(mount: Mount) -> None:
    """Also where the host lets everybody in; and the form is left for the dashboard to read."""
    app = plain()

    def authorize() -> bool:
        return request.form.to_dict() == {}

    receiver = ZimSendReceiver(settings=SETTINGS, authorize=authorize)
    receiver.on("*", name="note")(lambda event: None)
    client = mount(app, receiver=receiver)
    assert report(client, "failed", "m1", at="/sms/webhooks/zimsend").status_code == 200
    (event,) = parts_of(app).store.events(Selection())
    fields = {"back": f"/sms/events/{event['event_id']}", "id": event["event_id"]}
    path = "/sms/events/replay"
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        assert client.post(path, data=fields, headers=headers).status_code == 403
    chunked = {"wsgi.input_terminated": True}
    answer = client.post(path, data=fields, headers=SAME_ORIGIN, environ_overrides=chunked)
    assert (answer.status_code, answer.headers["Location"]) == (303, fields["back"])
    assert 'role="status"' in client.get(fields["back"]).text
    assert 'role="status"' not in client.get(fields["back"]).text


def parts_of(app: Flask) -> Any:
    (embedded,) = app.extensions["zimsend_receivers"].values()
    return parts(embedded.application)


def test_every_address_on_every_page_is_below_the_prefix(mount: Mount) -> None:
    from tests.web.dashboard.every_page import PAGES
    from tests.web.dashboard.world import fill

    app = hostile_host.shop()
    client = mount(app, authorize=lambda: True)
    fill(parts_of(app), days=2, hostile=True)
    base = {"base_url": "https://shop.example/shop"}
    for path in PAGES:
        answer = client.get(f"/sms{path}", **base)
        assert answer.status_code in (200, 404), path
        found = re.findall(r'(?:href|src|action|data-live)="([^"]*)"', answer.text)
        assert found
        outside = [
            to
            for to in map(html.unescape, found)
            if not to.startswith(("/shop/sms/", "#")) and "://" not in to
        ]
        assert outside == [], path
        for asset in {to for to in found if "/assets/" in to}:
            got = client.get(asset.removeprefix("/shop"), **base)
            assert got.status_code == 200
        assert not re.search(r'="/(?!shop/sms/)', answer.text), path


def test_cookies_are_below_the_prefix(mount: Mount) -> None:
    app = hostile_host.shop()
    client = mount(app, settings={"ADMIN_PASSWORD": "horse", "SECRET_KEY": "k" * 32})
    base = {"base_url": "https://shop.example/shop"}
    form = re.search(r'name="form" value="([^"]*)"', client.get("/sms/sign-in", **base).text)
    assert form
    fields = {"password": "horse", "form": form[1]}
    answer = client.post("/sms/sign-in", data=fields, headers=SAME_ORIGIN, **base)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/shop/sms/")
    (cookie,) = answer.headers.getlist("Set-Cookie")
    assert "Path=/shop/sms/;" in f"{cookie};"
    assert client.get("/sms/", **base).status_code == 200
    assert client.get("/sms/?lang=fr", **base).headers["Location"] == "/shop/sms/"


def test_a_host_that_cannot_open_a_session_lets_nobody_in(mount: Mount) -> None:
    class Broken(SecureCookieSessionInterface):
        def open_session(self, app: Flask, request: Request) -> NoReturn:
            raise RuntimeError("the sessions' database is away")

    app = plain()
    client = mount(app, authorize=lambda: True)
    app.session_interface = Broken()
    answer = client.get("/sms/messages")
    assert answer.status_code == 500
    assert "database" not in answer.text
    assert not current_app


# --- commands, and imports


def test_commands_are_the_hosts(mount: Mount) -> None:
    app = hostile_host.shop()
    client = mount(app)
    report(client, "failed", "m1", at="/sms/webhooks/zimsend")
    runner = app.test_cli_runner()
    with app.app_context():  # as the `flask` command has it
        assert "m1" in runner.invoke(args=["zimsend", "messages"]).output
    told = runner.invoke(args=["zimsend", "trigger", "sms.sent"])
    assert told.exit_code == 1
    assert "http://127.0.0.1:5000/sms/webhooks/zimsend" in told.output


def test_texts_name_the_commands_as_they_are_called_here(mount: Mount) -> None:
    app = plain()
    mount(app, name="receiver")
    told = app.test_cli_runner().invoke(args=["receiver", "events", "show", "nobody"])
    assert "flask receiver events list" in told.output


def test_public_url_may_hold_the_prefix(mount: Mount) -> None:
    app = plain()
    mount(app, settings={"PUBLIC_URL": "https://shop.example/sms"})
    config = parts_of(app).config
    assert config.webhook_url == "https://shop.example/sms/webhooks/zimsend"
    assert config.local_url == "https://shop.example/sms"


def test_it_needs_no_other_framework() -> None:
    code = (
        "import sys, receiver.flask; print([n for n in ('django', 'gunicorn') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ran.stdout == "[]\n", ran.stderr
