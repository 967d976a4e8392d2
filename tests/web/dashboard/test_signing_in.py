"""Who gets into the dashboard, and who does not."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

import pytest
from flask import Flask
from itsdangerous import TimestampSigner

from receiver import times
from receiver.parts import Receiver
from receiver.web.dashboard.tokens import Tokens
from tests.conftest import Clock
from tests.web.dashboard.conftest import KEY, PASSWORD, Another, Visitor, field_of

HOUR = times.HOUR


@pytest.fixture
def tokens(receiver: Receiver) -> Tokens:
    return Tokens(receiver.config, receiver.now)


# --- the password


def test_the_password_lets_in(visitor: Visitor) -> None:
    asked = visitor.get("/settings?x=1")
    assert (asked.status_code, asked.location) == (303, "/sign-in?to=/settings?x%3D1")
    answer = visitor.sign_in(to="/settings?x=1")
    assert (answer.status_code, answer.location) == (303, "/settings?x=1")
    assert visitor.get("/settings").status_code == 200


@pytest.mark.parametrize("wrong", ["", "x", PASSWORD + " ", PASSWORD.upper(), "\udcff"])
def test_another_password_does_not(visitor: Visitor, wrong: str) -> None:
    answer = visitor.sign_in(wrong.encode("utf-8", "replace").decode())
    assert answer.status_code == 401
    assert "This is not the password" in answer.text
    assert visitor.session() is None
    assert visitor.get("/").status_code == 303


def test_the_password_is_one_however_its_accents_are_typed(visitor: Visitor) -> None:
    assert visitor.sign_in(PASSWORD.replace("ê", "e\u0302")).status_code == 303


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/\tx"]
)
def test_signing_in_leads_nowhere_else(visitor: Visitor, to: str) -> None:
    assert visitor.sign_in(to=to).location == "/"


# --- the session


def cookie(answer_headers: list[str], name: str = "zimsend_session") -> str:
    return next(header for header in answer_headers if header.startswith(f"{name}="))


def test_the_flags_of_the_cookie(visitor: Visitor) -> None:
    flags = cookie(visitor.sign_in().headers.getlist("Set-Cookie")).split("; ")[1:]
    assert {"HttpOnly", "SameSite=Lax", "Path=/", f"Max-Age={12 * 3600}"} <= set(flags)
    assert "Secure" not in flags


def test_it_is_secure_where_the_service_is(another: Another) -> None:
    visitor = another(PUBLIC_URL="https://sms.example.com")
    answer = visitor.sign_in()
    assert "; Secure" in cookie(answer.headers.getlist("Set-Cookie"))


def test_a_session_ends_after_twelve_hours(admin: Visitor, clock: Clock) -> None:
    clock.time += 12 * HOUR - times.MINUTE
    assert admin.get("/settings").status_code == 200
    clock.time += 2 * times.MINUTE
    assert admin.get("/settings").status_code == 303


def test_a_session_is_good_at_every_process_and_with_a_rotated_key(
    admin: Visitor, another: Another
) -> None:
    other = another(SECRET_KEY=f"{'n' * 32},{KEY}")
    other.client.set_cookie("zimsend_session", admin.session() or "")
    assert other.get("/settings").status_code == 200


@pytest.mark.parametrize(
    "settings", [{"ADMIN_PASSWORD": "another one"}, {"SECRET_KEY": "n" * 32}], ids=str
)
def test_a_new_password_or_key_signs_everybody_out(
    admin: Visitor, another: Another, settings: dict[str, str]
) -> None:
    other = another(**settings)
    other.client.set_cookie("zimsend_session", admin.session() or "")
    assert other.get("/settings").status_code == 303


def forged(session: str) -> Iterator[str]:
    """What is nearly a session."""
    payload, stamp, signature = session.split(".")
    yield ""
    yield f"{session}=="  # what decoders overlook
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    yield session[:-1] + alphabet[alphabet.index(session[-1]) ^ 1]
    yield payload
    yield f"{payload}.{stamp}."
    yield f"x{session}"
    yield f"{payload[:-1]}{'A' if payload[-1] != 'A' else 'B'}.{stamp}.{signature}"
    yield f"{payload}.{stamp[:-1]}{'A' if stamp[-1] != 'A' else 'B'}.{signature}"
    yield f"{payload}.{stamp}.{signature[::-1]}"
    for salt in (b"", b"itsdangerous.Signer", b"cookie-session", b"zimsend-receiver session "):
        yield TimestampSigner(KEY, salt=salt).sign(payload).decode()
        yield TimestampSigner(KEY, salt=salt, key_derivation="hmac").sign(payload).decode()


def test_a_changed_session_is_none(admin: Visitor) -> None:
    for wrong in forged(admin.session() or ""):
        admin.client.set_cookie("zimsend_session", wrong)
        assert admin.get("/settings").status_code == 303, wrong


def test_what_else_is_signed_is_no_session(admin: Visitor, tokens: Tokens) -> None:
    for other in (tokens.link(), tokens.form(), tokens.notice("x", {})):
        admin.client.set_cookie("zimsend_session", other)
        assert admin.get("/settings").status_code == 303


def test_signing_out(admin: Visitor) -> None:
    answer = admin.post("/sign-out", {})
    assert (answer.status_code, answer.location) == (303, "/sign-in")
    assert admin.get("/").status_code == 303


# --- the link of `make run`


def test_the_link_shows_a_button_that_signs_in_once(
    visitor: Visitor, tokens: Tokens, another: Another
) -> None:
    link = f"/sign-in?link={tokens.link()}"
    for _ in range(2):  # a browser may look ahead, as often as it likes
        shown = visitor.get(link)
        assert shown.status_code == 200
        assert visitor.session() is None
    token = field_of(shown.text, "link")
    answer = visitor.post("/sign-in/link", {"link": token})
    assert (answer.status_code, answer.location) == (303, "/")
    assert visitor.get("/settings").status_code == 200
    other = another()
    assert other.post("/sign-in/link", {"link": token}).status_code == 410
    assert other.get(link).status_code == 410
    assert other.get("/").status_code == 303


def test_the_link_is_good_for_ten_minutes(visitor: Visitor, tokens: Tokens, clock: Clock) -> None:
    token = tokens.link()
    clock.time += 10 * times.MINUTE + times.SECOND
    assert visitor.get(f"/sign-in?link={token}").status_code == 410
    assert visitor.post("/sign-in/link", {"link": token}).status_code == 410
    assert visitor.session() is None


@pytest.mark.parametrize("token", ["", "x", "x.y.z"])
def test_another_link_is_none(visitor: Visitor, token: str) -> None:
    assert visitor.get(f"/sign-in?link={token}").status_code == 410
    assert visitor.post("/sign-in/link", {"link": token}).status_code == 410


# --- how often


@pytest.mark.each_engine
def test_wrong_passwords_are_throttled_over_all_processes(
    another: Another, engine: str, app: Flask, clock: Clock
) -> None:
    visitors = [Visitor(app), another()]
    forms = [field_of(visitor.get("/sign-in").text, "form") for visitor in visitors]
    clock.time += 10 * times.SECOND

    def attempt(number: int, password: str) -> int:
        fields = {"form": forms[number % 2], "password": password}
        return visitors[number % 2].post("/sign-in", fields).status_code

    assert [attempt(n, "wrong") for n in range(5)] == [401] * 5
    assert {attempt(n, "wrong") for n in range(20)} == {429}
    refused = visitors[0].post("/sign-in", {"form": forms[0], "password": PASSWORD})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 12


def test_nobody_is_kept_out_for_long(another: Another, app: Flask, clock: Clock) -> None:
    visitor = Visitor(app)
    for _ in range(8):
        visitor.sign_in("wrong")
    clock.time += 12 * times.SECOND
    assert another().sign_in().status_code == 303


def test_many_addresses_make_all_wait_for_five_seconds_and_no_longer(
    another: Another, app: Flask, clock: Clock
) -> None:
    settings = {"TRUSTED_PROXIES": "1"}
    crowd = another(**settings)
    form = field_of(crowd.get("/sign-in").text, "form")
    clock.time += 5 * times.SECOND
    for number in range(120):
        address = {"X-Forwarded-For": f"198.51.{number}.7"}
        answer = crowd.post("/sign-in", {"form": form, "password": "wrong"}, **address)
        assert answer.status_code == 401
    owner = another(**settings)
    mine = {"X-Forwarded-For": "203.0.113.5"}
    form = field_of(owner.get("/sign-in").text, "form")
    answer = owner.post("/sign-in", {"form": form, "password": PASSWORD}, **mine)
    assert answer.status_code == 429
    wait = int(answer.headers["Retry-After"])
    assert 2 <= wait <= 5
    clock.time += wait * times.SECOND
    # The form that came with the refusal, or the one from before.
    assert owner.post("/sign-in", {"form": form, "password": PASSWORD}, **mine).status_code == 303


def test_what_is_refused_costs_the_store_nothing(
    app: Flask, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor(app)
    for _ in range(6):
        visitor.sign_in("wrong")
    form = field_of(visitor.get("/sign-in").text, "form")
    for name in ("take", "turn", "claim_turn", "note", "write_notes"):
        monkeypatch.setattr(receiver.store, name, None)
    assert visitor.post("/sign-in", {"form": form, "password": "wrong"}).status_code == 429


# --- other sites


def changing_routes(app: Flask) -> list[tuple[str, str]]:
    """Every method and path of the dashboard that is not for reading alone."""
    found = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("dashboard."):
            path = re.sub(r"<[^>]*>", "x", rule.rule)
            found += [(m, path) for m in (rule.methods or set()) - {"GET", "HEAD", "OPTIONS"}]
    return found


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:81"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://[localhost"},
        {"Origin": "localhost"},
        {"Referer": "http://localhost/"},
    ],
    ids=str,
)
def test_changes_from_other_sites_are_refused_on_every_route(
    app: Flask, admin: Visitor, headers: dict[str, str]
) -> None:
    routes = changing_routes(app)
    assert len(routes) >= 3
    session = admin.session()
    for method, path in routes:
        answer = admin.client.open(path, method=method, headers=headers)
        assert answer.status_code == 403, f"{method} {path}"
    assert admin.session() == session


@pytest.mark.parametrize(
    ("headers", "host"),
    [
        ({"Origin": "http://localhost"}, "localhost"),
        ({"Origin": "http://localhost:3000"}, "localhost:3000"),
        ({"Origin": "https://sms.example.com"}, "sms.example.com"),
        ({"Origin": "https://sms.example.com"}, "sms.example.com:443"),
        ({"Origin": "http://[::1]:3000"}, "[::1]:3000"),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.example"}, "localhost"),
    ],
    ids=str,
)
def test_changes_from_its_own_pages_are_not(
    visitor: Visitor, headers: dict[str, str], host: str
) -> None:
    answer = visitor.client.post("/sign-in", headers=headers | {"Host": host})
    assert answer.status_code == 401


def test_nothing_changes_by_reading(app: Flask, admin: Visitor) -> None:
    """A route that changes something cannot be asked by GET."""
    for method, path in changing_routes(app):
        if path != "/sign-in":
            assert admin.get(path).status_code in (404, 405), f"{method} {path}"
