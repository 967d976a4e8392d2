"""`flask config`: what is in effect, where it comes from, and no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from receiver.config import NAMES, SETTINGS
from receiver.environment import Environment

SECRET = "whsec_hunter2_hunter2_hunter2"
#: Each secret has this in it.
HIDDEN = "hunter2"


def shown(folder: Path, style: str = "jsonl", filed: tuple[str, ...] = (), **variables: str) -> str:
    environment = Environment(
        {"ZIMSEND_WEBHOOK_SECRET": SECRET, **variables}, folder, folder / ".env", filed
    )
    ran = create_app(environment).test_cli_runner().invoke(args=["config", "--format", style])
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def rows(output: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in map(json.loads, output.splitlines())}


def test_each_setting_with_its_value_and_where_it_comes_from(tmp_path: Path) -> None:
    found = rows(
        shown(
            tmp_path,
            filed=("STORE_TEXT", "ZIMSEND_WEBHOOK_SECRET"),
            STORE_TEXT="'none'",
            LOG_LEVEL="debug",
            PORT=" ",
        )
    )
    assert set(found) == set(NAMES)
    assert found["STORE_TEXT"] == {
        "name": "STORE_TEXT", "value": "none", "set": True, "source": ".env",
    }  # fmt: skip
    assert (found["LOG_LEVEL"]["value"], found["LOG_LEVEL"]["source"]) == ("debug", "environment")
    assert found["PORT"] == {"name": "PORT", "value": "3000", "set": False, "source": "default"}
    assert found["DATABASE_URL"]["value"] == f"sqlite:///{tmp_path}/receiver.db"
    assert found["DATABASE_URL"]["source"] == "default"
    assert found["PUBLIC_URL"]["value"] is None
    assert found["ZIMSEND_WEBHOOK_SECRET"] == {
        "name": "ZIMSEND_WEBHOOK_SECRET", "value": None, "set": True, "source": ".env",
    }  # fmt: skip


def test_the_same_for_people(tmp_path: Path) -> None:
    table = shown(tmp_path, "table", filed=("STORE_TEXT",), STORE_TEXT="none").splitlines()
    lines = {line.split()[0]: line.split()[1:] for line in table[1:-1]}
    assert lines["STORE_TEXT"] == ["none", ".env"]
    assert lines["ZIMSEND_WEBHOOK_SECRET"] == ["set", "environment"]
    assert lines["ZIMSEND_API_KEY"] == ["not", "set", "default"]
    assert table[-1] == f".env is {tmp_path}/.env; relative paths count from {tmp_path}"


@pytest.mark.parametrize("style", ["table", "jsonl"])
@pytest.mark.parametrize(
    "url",
    [
        "postgres://user:hunter2@db.example.com/d",
        "postgres://user:pa%40hunter2:hunter2@db.example.com/d",
        "postgres://user@db.example.com/d?password=hunter2",
        "postgres://db.example.com/d?user=u&password=hunter2&sslpassword=hunter2",
    ],
)
def test_no_secret_is_shown(tmp_path: Path, style: str, url: str) -> None:
    secrets = {
        setting.name: "_".join(["long", *[HIDDEN] * 5]) for setting in SETTINGS if setting.secret
    }
    secrets |= {"ALERT_URLS": f"json://u:{HIDDEN}@h", "HEARTBEAT_URL": f"https://h/{HIDDEN}"}
    secrets |= {"EMAIL_URL": f"smtp://u:{HIDDEN}@h"}
    forward = {"FORWARD_URL": f"https://u:{HIDDEN}@example.com", "FORWARD_SECRET": HIDDEN}
    given = secrets | forward | {"DATABASE_URL": url, "HANDLERS": "handlers.log"}
    output = shown(tmp_path, style, **given)
    assert "db.example.com" in output
    assert HIDDEN not in output


def test_what_holds_a_secret_is_marked_so() -> None:
    secret = {setting.name for setting in SETTINGS if setting.secret}
    assert {name for name in NAMES if name.endswith(("_SECRET", "_KEY"))} - secret == {
        "FORWARD_SECRET"  # the handler's, and hidden as well
    }
