"""The receiver inside a Django project that was there before it: all works below the prefix as it
does alone, and nothing of the project is changed."""

from __future__ import annotations

import gzip
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

from receiver.parts import parts
from tests.embedded import djangos
from tests.embedded.asked import FORMS, KEY, SAME_ORIGIN, TOKEN, alone, compare, event, signed
from tests.embedded.djangos import Ask, project

PREFIX = "/sms"


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


def test_everything_is_answered_as_it_is_alone(embedded: Ask, tmp_path: Path) -> None:
    with alone(settings(tmp_path)) as service:
        compare(embedded, service)


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
