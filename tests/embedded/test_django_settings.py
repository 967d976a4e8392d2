"""`settings.ZIMSEND`, who may see the dashboard, and `manage.py zimsend`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("django", reason="NOT TESTED HERE: there is no Django")

from django.core.exceptions import PermissionDenied
from django.core.management import CommandError, call_command, execute_from_command_line
from django.core.management.base import SystemCheckError
from django.http import Http404, HttpResponseRedirect
from django.test import override_settings
from django.views.debug import ExceptionReporter

from receiver.config import Config
from receiver.parts import parts
from tests.embedded import djangos
from tests.embedded.djangos import Ask
from tests.forks import in_a_fork
from tests.server import ROOT


@pytest.fixture(scope="module", autouse=True)
def _django() -> None:
    djangos.set_up()


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    from tests.embedded.django_host.settings import ZIMSEND

    return {**ZIMSEND, "DATABASE_URL": f"sqlite:///{tmp_path / 'receiver.db'}"}


@pytest.fixture
def ask() -> Ask:
    return djangos.project("wsgi")


def config() -> Config:
    from receiver.django.embedding import receiver

    return parts(receiver().application).config


async def later(request: object) -> bool:
    return False


# --- settings


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"RETENTION_DAYS": "many"}, "RETENTION_DAYS: "),
        ({"ZIMSEND_WEBHOOK_SECRETS": "x"}, "is ZIMSEND_WEBHOOK_SECRET meant?"),
        ({"ZIMSEND_WEBHOOK_SECRET": ""}, "ZIMSEND_WEBHOOK_SECRET: not set"),
        ({"HANDLERS": ["no.such.module"]}, "HANDLERS: cannot import no.such.module"),
        ({"AUTHORIZE": "shop.nowhere.may"}, "AUTHORIZE: cannot import shop.nowhere.may"),
        ({"AUTHORIZE": "tests.embedded.django_host.settings.SECRET_KEY"}, "is no plain function"),
        ({"AUTHORIZE": f"{__name__}.later"}, "is no plain function"),
        ({"AUTHORIZE": "broken.may"}, "AUTHORIZE: cannot import broken.may: ZeroDivisionError"),
        ({"DATABASE_URL": lambda: {}["URL"]}, "DATABASE_URL: the function that tells it has fa"),
        ({"EMBEDDED_WORKER": "perhaps"}, "EMBEDDED_WORKER: "),
    ],
)
def test_a_wrong_setting_is_told_by_check_and_at_the_first_use(
    given: dict[str, Any],
    ask: Ask,
    changed: dict[str, Any],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    with override_settings(ZIMSEND=given | changed):
        with pytest.raises(SystemCheckError) as found:
            call_command("check")
        assert told in str(found.value)
        assert "zimsend.E001" in str(found.value)
        assert given["ZIMSEND_WEBHOOK_SECRET"] not in str(found.value)
        with pytest.raises(CommandError, match="cannot start"):
            call_command("zimsend", "migrate")
        with override_settings(DEBUG=True):
            answer = ask("GET", "/sms/healthz")
        assert answer.status == 500
        assert b"ConfigError" in answer.body
        assert given["ZIMSEND_WEBHOOK_SECRET"].encode() not in answer.body
        assert ask("GET", "/hats").status == 302  # the project goes on


def test_a_defect_shows_no_setting_either(
    given: dict[str, Any], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object, **__: object) -> None:
        raise TypeError(str(given))

    monkeypatch.setattr("receiver.django.embedding.Embedded", defect)
    with override_settings(ZIMSEND=given, DEBUG=True):
        answer = ask("GET", "/sms/healthz")
    assert answer.status == 500
    assert b"a defect of this program, TypeError" in answer.body
    assert given["ZIMSEND_WEBHOOK_SECRET"].encode() not in answer.body


def test_settings_that_are_no_dictionary_are_told() -> None:
    with override_settings(ZIMSEND=["x"]), pytest.raises(SystemCheckError, match="dictionary"):
        call_command("check")


def test_relative_paths_count_from_the_project(given: dict[str, Any], tmp_path: Path) -> None:
    relative = given | {"DATABASE_URL": "sqlite:///here.db"}
    with override_settings(ZIMSEND=relative, BASE_DIR=tmp_path):
        assert config().database_url == f"sqlite:///{tmp_path / 'here.db'}"
    with override_settings(ZIMSEND=relative, BASE_DIR=str(tmp_path)):
        assert config().database_url == f"sqlite:///{tmp_path / 'here.db'}"
    with override_settings(ZIMSEND=relative, BASE_DIR=None):
        beside = ROOT / "tests/embedded/django_host/here.db"
        assert config().database_url == f"sqlite:///{beside}"


def test_without_settings_the_environment_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZIMSEND_WEBHOOK_SECRET", "whsec_of_the_environment_0123456789ab")
    with override_settings(BASE_DIR=tmp_path):
        from django.conf import settings

        del settings.ZIMSEND
        assert config().webhook_secrets == (b"whsec_of_the_environment_0123456789ab",)


def test_a_password_in_an_address_can_be_kept_out_of_error_pages(given: dict[str, Any]) -> None:
    """Django hides settings by their names, and DATABASE_URL is none that it knows."""
    address = "postgres://shop:hunter2@127.0.0.1/shop"
    with override_settings(ZIMSEND=given | {"DATABASE_URL": lambda: address}):
        assert "hunter2" in config().database_url
        told = ExceptionReporter(None, ValueError, ValueError("x"), None)
        assert "hunter2" not in told.get_traceback_text() + told.get_traceback_html()


def test_this_machine_reaches_it_where_runserver_serves_it(given: dict[str, Any]) -> None:
    from receiver.django.embedding import receiver

    with override_settings(ZIMSEND=given):
        host = parts(receiver().application).host
        assert host is not None
        assert host.here() == "http://127.0.0.1:8000/sms"


# --- who may see the dashboard


def by_header(request: Any) -> Any:
    """Of the project: who says so is let in."""
    says = request.headers.get("X-Says")
    if says == "raise":
        raise PermissionDenied
    if says == "hide":
        raise Http404
    if says == "redirect":
        return HttpResponseRedirect(f"/login?next={request.path}")
    if says == "something":
        return "yes"
    return says == "staff" and request.user.is_anonymous  # the session is there


@pytest.fixture(params=["wsgi", "asgi"])
def asked(given: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[Ask]:
    from receiver.django.embedding import receiver

    given.pop("ADMIN_PASSWORD")
    given.pop("SECRET_KEY")
    path = f"{__name__}.by_header"
    with override_settings(ZIMSEND=given | {"AUTHORIZE": path}):
        parts(receiver().application).store.migrate()
        yield djangos.project(request.param)


def test_the_project_says_who_may_see_the_dashboard(asked: Ask) -> None:
    assert asked("GET", "/sms/messages", x_says="staff").status == 200
    for says in ("", "raise", "something"):
        assert asked("GET", "/sms/messages", x_says=says).status == 403
    assert asked("GET", "/sms/messages", x_says="hide").status == 404
    answer = asked("GET", "/sms/messages", x_says="redirect")
    assert (answer.status, answer.one("location")) == (302, "/login?next=/sms/messages")
    assert b"NO_CREDIT" not in answer.body


def test_who_is_let_in_still_changes_nothing_from_another_site(asked: Ask) -> None:
    for site, status in (("cross-site", 403), ("same-origin", 400)):  # which event, it asks
        answer = asked("POST", "/sms/events/replay", x_says="staff", sec_fetch_site=site)
        assert answer.status == status


def test_webhooks_and_v1_are_not_asked_about(asked: Ask) -> None:
    assert asked("GET", "/sms/webhooks/zimsend").status == 200
    assert asked("GET", "/sms/v1/sms/history", x_api_key="a key of the shop's").status == 200


# --- commands


Manage = Callable[..., tuple[object, str, str]]


@pytest.fixture
def manage(given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> Manage:
    """Type a command; returns the exit status and what went to standard output and error."""

    def run(*arguments: str, **changed: str) -> tuple[object, str, str]:
        with override_settings(ZIMSEND=given | changed):
            with pytest.raises(SystemExit) as ended:
                execute_from_command_line(["./manage.py", "zimsend", *arguments])
            return ended.value.code, *capsys.readouterr()

    return run


def test_commands_have_their_own_options_help_and_statuses(manage: Manage) -> None:
    status, out, err = manage("--settings", djangos.SETTINGS, "migrate")
    assert (status, out[:9], err) == (0, "migrated:", "")

    status, out, err = manage("events", "list", "--help")
    assert out.startswith("Usage: manage.py zimsend events list [OPTIONS]")
    assert (status, "--state" in out, err) == (0, True, "")

    status, out, err = manage("events", "list", "--nothing")
    assert (status, out, "--nothing" in err) == (2, "", True)

    status, out, err = manage("events", "show", "evt_none")
    assert (status, out) == (1, "")
    assert "there is no event 'evt_none'; see `manage.py zimsend events list`" in err


def test_a_wrong_setting_ends_a_command_with_one_line(manage: Manage) -> None:
    status, _, err = manage("migrate", DATABASE_URL="mysql://x")
    assert status == 1
    assert err.startswith("zimsend-receiver cannot start. DATABASE_URL: ")
    assert err.count("\n") == 1


def test_commands_can_be_called_by_a_program(
    given: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with override_settings(ZIMSEND=given):
        call_command("zimsend", "migrate")
        capsys.readouterr()
        call_command("zimsend", "handlers")
        _, *lines = capsys.readouterr().out.splitlines()
        assert {line.split()[0] for line in lines} == {
            "devices",
            "tests.embedded.django_host.zimsend_handlers.note_in_the_order",
        }
        call_command("zimsend", "events", "list", "--format", "jsonl")
        assert capsys.readouterr().out == ""
        with pytest.raises(CommandError, match="there is no event") as ended:
            call_command("zimsend", "events", "show", "evt_none")
        assert ended.value.returncode == 1


# --- what is loaded


def test_nothing_but_its_own_door_loads_django() -> None:
    code = (
        "import sys, receiver.service, receiver.embedded, receiver.flask, receiver.django\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'django'])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


def test_nothing_is_opened_and_no_thread_starts_before_the_first_request(tmp_path: Path) -> None:
    code = (
        "import os, threading; from django.core.wsgi import get_wsgi_application\n"
        "from receiver.django.embedding import receiver\n"
        "get_wsgi_application(); receiver()\n"
        "print(threading.active_count(), os.listdir())"
    )
    (tmp_path / "sms").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=djangos.environ(tmp_path),
        capture_output=True,
        text=True,
    )
    assert (ran.stdout, ran.stderr) == ("1 ['sms']\n", "")


def test_a_fork_makes_the_receiver_whoever_makes_it_at_the_fork(given: dict[str, Any]) -> None:
    from receiver.django import embedding

    with override_settings(ZIMSEND=given), ThreadPoolExecutor(1) as pool:
        pool.submit(embedding._making.acquire).result(10)
        try:
            assert in_a_fork(lambda: embedding.receiver().group is not None)
        finally:
            pool.submit(embedding._making.release).result(10)
