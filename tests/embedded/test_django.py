"""The receiver inside a Django project that was there before it: all works below the prefix as it
does alone, and nothing of the project is changed."""

from __future__ import annotations

import gzip
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("django", reason="NOT TESTED HERE: there is no Django")

from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import override_settings

from app import create_app
from receiver.parts import parts
from receiver.providers.zimsend.webhook import sign
from tests.conftest import SECRET
from tests.embedded import djangos
from tests.embedded.djangos import Answer, Ask, over_wsgi, project
from tests.payloads import envelope, sms

PREFIX = "/sms"
KEY = {"x_api_key": "a key of the shop's"}
TOKEN = {"authorization": "Bearer a-token-of-32-characters-or-more"}
SAME_ORIGIN = {"sec_fetch_site": "same-origin"}
FORMS = {"content_type": "application/x-www-form-urlencoded"}
FILES = {"content_type": "multipart/form-data; boundary=x"}


@pytest.fixture(scope="module", autouse=True)
def _django() -> None:
    djangos.set_up()


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def settings(folder: Path) -> dict[str, Any]:
    from tests.embedded.django_host.settings import ZIMSEND

    return {**ZIMSEND, "DATABASE_URL": f"sqlite:///{folder / 'receiver.db'}"}


@pytest.fixture(scope="module")
def embedded(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """The project, by one kind of server or the other."""
    from receiver.django.embedding import receiver

    with override_settings(ZIMSEND=settings(tmp_path_factory.mktemp("embedded"))):
        parts(receiver().application).store.migrate()
        yield project(server)
        receiver().close()


@pytest.fixture(scope="module")
def alone(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """The service as it is without Django."""
    given = settings(tmp_path_factory.mktemp("alone"))
    app = create_app({**given, "HANDLERS": ",".join(given["HANDLERS"])})
    receiver = parts(app)
    receiver.store.migrate()
    yield lambda *asked, **headers: over_wsgi(app, *asked, **headers)
    receiver.counting.stop()
    app.extensions["metrics"].stop()
    receiver.store.close()


def signed(body: bytes, **headers: str) -> dict[str, str]:
    return {
        "content_type": "application/json",
        "x_webhook_signature": sign(SECRET.encode(), body),
        **headers,
    }


def event(message_id: str = "m1", kind: str = "failed", **more: Any) -> bytes:
    return json.dumps(envelope(f"sms.{kind}", sms(kind, message_id), **more)).encode()


FAILED = event("m1", event_id="evt_1")
ODD = event("a/b", event_id="evt_2")
FORM = b"otp=1%2C2&x=\xff"

#: What is asked in this order, once alone and once inside.
ASKED: list[tuple[str, str, bytes, dict[str, str]]] = [
    ("GET", "/webhooks/zimsend", b"", {}),
    ("HEAD", "/webhooks/zimsend", b"", {}),
    ("PUT", "/webhooks/zimsend", b"", {}),
    ("POST", "/webhooks/zimsend", FAILED, signed(FAILED)),
    ("POST", "/webhooks/zimsend", FAILED, signed(FAILED)),
    ("POST", "//webhooks//zimsend/", ODD, signed(ODD)),
    ("POST", "/webhooks/zimsend", FAILED + b" ", signed(FAILED)),
    ("POST", "/webhooks/zimsend", FORM, signed(FORM, **FORMS)),
    ("POST", "/webhooks/zimsend", b"--x--", signed(b"--x--", **FILES)),
    ("POST", "/webhooks/zimsend", b"{}", {}),
    ("POST", "/webhooks/zimsend", b"x" * 300_000, {}),
    ("POST", "/webhooks/zimsend", b"", {}),
    ("POST", "/webhooks/nobody", b"{}", {}),
    ("GET", "/v1/sms/history", b"", {}),
    ("GET", "/v1/sms/history?limit=1&status=failed", b"", KEY),
    ("HEAD", "/v1/sms/history", b"", KEY),
    ("GET", "/v1//sms/stats/", b"", KEY),
    ("GET", "/v1/sms/status/m1", b"", KEY),
    ("GET", "/v1/sms/status/a%2Fb", b"", KEY),
    ("GET", "/v1/sms/status/a/b", b"", KEY),
    ("GET", "/v1/sms/status/a//b", b"", KEY),
    ("GET", "/v1/sms/status/%FF", b"", KEY),
    ("GET", "/v1/sms/status/%25FF", b"", KEY),
    ("GET", "/v1/sms/status/%EF%BF%BD%C3%A9", b"", KEY),
    ("GET", "/v1/sms/status/x%0Ay", b"", KEY),
    ("GET", "/v1/sms/status/x?y%26=%FF", b"", KEY),
    ("POST", "/v1/sms/send", b'{"to": 1}', KEY),
    ("POST", "/v1/sms/send", b"not json" * 200_000, KEY),
    ("DELETE", "/v1/sms/none", b"", KEY),
    ("GET", "/v1/nothing", b"", KEY),
    ("GET", "/v1/nothing", b"", {}),
    ("GET", "/v1/reconciliation", b"", KEY),
    ("GET", "/healthz", b"", {}),
    ("GET", "/readyz", b"", {}),
    ("HEAD", "/readyz/", b"", {}),
    ("GET", "/metrics", b"", {}),
    ("GET", "/metrics", b"", TOKEN),
    ("GET", "/nothing", b"", {}),
    ("GET", "/", b"", {}),
    ("GET", "/messages?status=failed", b"", {}),
    ("GET", "/sign-in", b"", {}),
    ("GET", "/sign-in?lang=fr", b"", {}),
    ("POST", "/sign-in", b"password=wrong", SAME_ORIGIN | FORMS),
    ("POST", "/sign-in", b"password=wrong", {"sec_fetch_site": "cross-site"}),
    ("OPTIONS", "/sign-in", b"", {}),
    ("GET", "/assets/none.css", b"", {}),
]  # fmt: skip


OF_THE_HOST = ("x-frame-options", "referrer-policy")


def plain(answer: Answer, prefix: str) -> dict[str, Any]:
    """What must be the same, whatever the prefix is, and at whatever time it was asked."""

    def bare(text: str) -> str:
        text = text.replace(f"{prefix}/", "/") if prefix else text
        text = re.sub(r'value="[\w.-]{20,}"', "value=…", text)  # a form's token
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "…", text)

    kept = ("content-type", "retry-after", "allow", "www-authenticate", "location", "cache-control",
            "content-security-policy", *OF_THE_HOST)  # fmt: skip
    return {
        "status": answer.status,
        **{name: [bare(value) for value in answer.all(name)] for name in kept},
        "cookies": sorted(attributes(bare(cookie)) for cookie in answer.all("set-cookie")),
        "body": bare(answer.body.decode("utf-8", "replace")),
    }


def attributes(cookie: str) -> list[str]:
    """A cookie's name, and what is said of it."""
    name, *rest = re.sub(r"=[^;]*", "", cookie, count=1).strip().split("; ")
    return [name, *sorted(re.sub(r"expires=.*", "expires", part.lower()) for part in rest)]


def test_everything_is_answered_as_it_is_alone(embedded: Ask, alone: Ask) -> None:
    for method, target, body, headers in ASKED:
        expected = plain(alone(method, target, body, **headers), "")
        got = plain(embedded(method, PREFIX + target, body, **headers), PREFIX)
        if target in ("/metrics", "/readyz"):
            expected["body"] = got["body"] = ""  # how long things took, and what waits
        got["cache-control"] = [v for v in got["cache-control"] if v != "private"]
        got["cache-control"] = [v.removesuffix(", private") for v in got["cache-control"]]
        got |= {name: [] for name in OF_THE_HOST if not expected[name]}  # it guards all it serves
        assert got == expected, (method, target)


@pytest.fixture(scope="module")
def admin(embedded: Ask) -> dict[str, str]:
    """The headers of one who has signed in: nobody may do so too often."""
    return sign_in(embedded, PREFIX)


def sign_in(service: Ask, prefix: str) -> dict[str, str]:
    """Returns the headers of one who has signed in."""
    form = re.findall(rb'name="form" value="([^"]+)"', service("GET", f"{prefix}/sign-in").body)
    fields = urlencode({"form": form[0].decode(), "password": "corrêct horse battery staple"})
    answer = service(
        "POST",
        f"{prefix}/sign-in",
        fields.encode(),
        **SAME_ORIGIN,
        **FORMS,
    )
    assert answer.status == 303
    assert answer.one("location") == f"{prefix}/"
    (cookie,) = answer.all("set-cookie")
    assert f"Path={prefix}/;" in f"{cookie};"
    return {"cookie": cookie.partition(";")[0]}


@pytest.mark.parametrize("prefix", ["/sms", "/acme/of/sms", "/fr/in/sms"])
def test_the_dashboard_is_seen_below_each_prefix(embedded: Ask, prefix: str) -> None:
    body = event(f"m {prefix}")
    assert embedded("POST", f"{prefix}/webhooks/zimsend", body, **signed(body)).status == 200
    admin = sign_in(embedded, prefix)
    for page in ("/", "/messages", "/events", "/live", "/settings"):
        answer = embedded("GET", prefix + page, **admin)
        assert answer.status == 200
        links = re.findall(r'(?:href|action|src|data-live)="(/[^"]*)"', answer.body.decode())
        assert len(links) > 5
        assert not [link for link in links if not link.startswith(f"{prefix}/")]
    files = {link for link in links if "/assets/" in link}
    assert files
    for file in files:
        assert embedded("GET", file).status == 200


def test_what_is_exported_may_be_compressed(embedded: Ask, admin: dict[str, str]) -> None:
    for number in range(3):
        body = event(f"csv{number}")
        assert embedded("POST", "/sms/webhooks/zimsend", body, **signed(body)).status == 200
    answer = embedded("GET", "/sms/messages.csv", **admin)
    assert answer.status == 200
    assert b"csv2" in answer.body
    packed = embedded("GET", "/sms/messages.csv", **admin, accept_encoding="gzip")
    assert packed.one("content-encoding") == "gzip"
    assert gzip.decompress(packed.body) == answer.body


def test_a_chunked_body_is_read_whole(embedded: Ask) -> None:
    body = event("chunked")
    answer = embedded(
        "POST", "/sms/webhooks/zimsend", body, **signed(body, transfer_encoding="chunked")
    )
    assert (answer.status, answer.body[:22]) == (200, b'{"status": "accepted",')


@pytest.mark.parametrize("path", ["/smsx", "/sms", "/v1/sms/history", "/webhooks/zimsend"])
def test_what_lies_beside_the_prefix_is_the_projects(embedded: Ask, path: str) -> None:
    answer = embedded("GET", path)
    assert answer.status in (301, 302)  # to the slash, to a language, to signing in
    assert answer.one("location") in (f"{path}/", f"/en{path}", f"/login?next={path}")


def test_its_404_stays_where_it_is(embedded: Ask) -> None:
    """The project has a page for each path in each language, and a slash for each end."""
    assert embedded("GET", "/sms/v1/sms/status/none", **KEY).status == 404
    assert embedded("GET", "/in/sms/healthz").one("location") == "/en/in/sms/healthz"


def test_an_event_is_kept_while_the_projects_own_database_is_away(
    embedded: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where each of its requests is a transaction there."""

    def away(_: object) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", away)
    with pytest.raises(OperationalError):
        connection.cursor()
    body = event("kept")
    assert embedded("POST", "/sms/webhooks/zimsend", body, **signed(body)).status == 200


def test_what_django_says_of_proxies_counts(embedded: Ask) -> None:
    with override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
        answer = embedded("GET", "/sms/sign-in?lang=fr", x_forwarded_proto="https")
    assert "; secure" in answer.all("set-cookie")[0].lower()
    answer = embedded("GET", "/sms/sign-in?lang=fr", x_forwarded_proto="https")
    assert "; secure" not in answer.all("set-cookie")[0].lower()


def test_a_path_that_the_server_adds_is_a_part_of_the_prefix(embedded: Ask) -> None:
    with override_settings(FORCE_SCRIPT_NAME="/shop"):
        answer = embedded("GET", "/sms/messages")
        assert answer.one("location") == "/shop/sms/sign-in?to=/shop/sms/messages"


def test_no_refusal_is_logged_with_its_path(
    embedded: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    """It may hold a number, or SMS.CX's secret; and Django sends a mail for each 503."""
    for path in ("/webhooks/smscx/secret-0612345678", "/v1/sms/status/0612345678"):
        assert embedded("GET", PREFIX + path).status >= 400
    assert "0612345678" not in caplog.text


def test_what_one_may_see_is_not_kept_for_all(server: str, admin: dict[str, str]) -> None:
    """The project's cache keeps what it is not told to leave alone, and takes no note of keys."""
    from tests.embedded.django_host.settings import MIDDLEWARE

    cached = [
        "django.middleware.cache.UpdateCacheMiddleware",
        *MIDDLEWARE,
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]
    with override_settings(MIDDLEWARE=cached):
        service = project(server)
        for path, let_in, status in (
            ("/v1/sms/history", KEY, 400),
            ("/metrics", TOKEN, 401),
            ("/messages", admin, 303),
        ):
            assert service("GET", PREFIX + path, **let_in).status == 200
            assert service("GET", PREFIX + path).status == status


def pages(service: Ask) -> list[tuple[object, ...]]:
    """What the project's own visitors see."""
    seen: list[tuple[object, ...]] = []
    for method, path, headers in (
        ("GET", "/fr/hats", {}),
        ("GET", "/fr/hats/", {}),
        ("GET", "/hats", {}),
        ("POST", "/en/hats", {"cookie": "csrftoken=x"}),
        ("GET", "/nothing/of/it", {}),
        ("GET", "/smsx/", {}),
        ("OPTIONS", "/en/hats", {}),
    ):
        answer = service(method, path, **headers)
        told = sorted((name.lower(), value.partition("=")[0]) for name, value in answer.headers)
        body = re.sub(rb"[\w-]{32,}", b"", answer.body)  # a token
        seen.append((method, path, answer.status, told, body))
    return seen


@pytest.mark.parametrize("wall", [True, False])
def test_the_project_answers_as_before(server: str, wall: bool) -> None:
    from tests.embedded.django_host import settings, urls

    walls = [m for m in settings.MIDDLEWARE if wall or not m.endswith("LoginRequired")]
    without = [p for p in urls.urlpatterns if getattr(p, "app_name", None) != "zimsend"]
    before = types.ModuleType("urls_before")
    before.urlpatterns = without  # type: ignore[attr-defined]
    sys.modules["urls_before"] = before
    with override_settings(MIDDLEWARE=walls):
        with override_settings(ROOT_URLCONF="urls_before"):
            expected = pages(project(server))
        assert pages(project(server)) == expected
    assert any(status == (302 if wall else 200) for _, _, status, *_ in expected)
