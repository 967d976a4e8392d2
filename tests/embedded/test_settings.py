"""Where the settings of an embedded receiver come from."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from receiver import ConfigError
from receiver.config import Config
from receiver.hosted import settings_of
from tests.embedded.conftest import SECRET, SETTINGS, Embed, client_of

HERE = Path("/srv/shop")
POSTGRES = "postgresql://shop@localhost/shop"


def read(given: dict[str, object] | None = None, **environ: str) -> Config:
    return Config.from_env(settings_of(given, HERE, environ).environment)


def refused(given: dict[str, object] | None = None, **environ: str) -> ConfigError:
    settings = None
    try:
        settings = settings_of(given, HERE, environ)
        Config.from_env(settings.environment)
    except ConfigError as error:
        return error if settings is None else settings.error(error)
    raise AssertionError("nothing was refused")


def test_what_the_host_gives_is_read_and_its_environment_is_not() -> None:
    given = SETTINGS | {
        "RETENTION_DAYS": 30,
        "ALLOW_EPHEMERAL_SQLITE": False,
        "HANDLERS": ["shop.sms", "shop.more"],
        "DEFAULT_COUNTRY": None,
        "STORE_TEXT": "masked",
    }
    config = read(given, RETENTION_DAYS="1", PORT="80", DATABASE_URL=POSTGRES, STORE_TEXTS="none")
    assert config.retention == 30 * 86_400_000_000
    assert config.handlers == ("shop.sms", "shop.more")
    assert config.text_mode == "masked"
    assert config.port == 3000
    assert config.database_url == "sqlite:////srv/shop/receiver.db"


def test_a_list_of_secrets_may_hold_commas() -> None:
    secrets = ["whsec_with,a_comma_in_it", "whsec_0123456789abcdef"]
    config = read({"ZIMSEND_WEBHOOK_SECRET": secrets})
    assert config.webhook_secrets == tuple(secret.encode() for secret in secrets)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("RETENTION_DAY", 30, "is RETENTION_DAYS meant?"),
        ("WEBHOOK_SECRET", SECRET, "is ZIMSEND_WEBHOOK_SECRET meant?"),
        ("ANYTHING", 1, "no setting has this name"),
        ("RETENTION_DAYS", {"days": 30}, "must be a text, a number or a list of texts"),
        ("RETENTION_DAYS", b"30", "and not a bytes"),
        ("RETENTION_DAYS", True, None),  # 1
        ("FORWARD_URL", "https://example.com", "from the environment"),
    ],
)
def test_a_name_that_is_no_setting_is_refused(name: str, value: object, told: str | None) -> None:
    given = SETTINGS | {name: value}
    if told is None:
        read(given)
        return
    error = refused(given)
    assert error.name == name
    assert told in error.problem
    assert SECRET not in str(error)


def test_without_settings_the_environment_says_and_ours_wins_over_the_hosts() -> None:
    config = read(
        ZIMSEND_WEBHOOK_SECRET=SECRET,
        DATABASE_URL="mysql://shop",
        ZIMSEND_DATABASE_URL="sqlite:///sms.db",
        SECRET_KEY="short",
        ZIMSEND_SECRET_KEY="0123456789abcdef" * 2,
        ZIMSEND_ADMIN_PASSWORD="horse",
        TIMEZONE="Europe/Paris",
    )
    assert config.database_url == "sqlite:////srv/shop/sms.db"
    assert config.secret_keys == (b"0123456789abcdef" * 2,)
    assert config.admin_password == "horse"
    assert config.timezone.key == "Europe/Paris"


def test_an_empty_one_is_not_set() -> None:
    config = read(ZIMSEND_WEBHOOK_SECRET=SECRET, ZIMSEND_TIMEZONE="", TIMEZONE="Europe/Paris")
    assert config.timezone.key == "Europe/Paris"


def test_of_the_hosts_databases_only_a_postgresql_is_shared() -> None:
    config = read(ZIMSEND_WEBHOOK_SECRET=SECRET, DATABASE_URL=POSTGRES)
    assert config.database_url == f"{POSTGRES}?schema=zimsend"
    for url in ("sqlite:///app.db", "mysql://shop@localhost/shop"):
        error = refused(ZIMSEND_WEBHOOK_SECRET=SECRET, DATABASE_URL=url)
        assert error.name == "DATABASE_URL"
        assert "ZIMSEND_DATABASE_URL" in error.problem


def test_in_a_postgresql_the_tables_have_a_schema_of_their_own() -> None:
    assert read(SETTINGS | {"DATABASE_URL": POSTGRES}).database_schema == "zimsend"
    given = SETTINGS | {"DATABASE_URL": POSTGRES, "DATABASE_SCHEMA": "sms"}
    assert read(given).database_schema == "sms"


def test_a_wrong_one_is_named_as_it_is_written() -> None:
    own = {"ZIMSEND_WEBHOOK_SECRET": SECRET}
    assert refused(**own, ZIMSEND_RETENTION_DAYS="x").name == "ZIMSEND_RETENTION_DAYS"
    assert refused(**own, RETENTION_DAYS="x").name == "RETENTION_DAYS"
    error = refused(**own, ZIMSEND_STORE_TEXTS="none")
    assert error.name == "ZIMSEND_STORE_TEXTS"
    assert "STORE_TEXT" in error.problem


def test_only_names_of_ours_are_looked_at_for_slips() -> None:
    own = {"ZIMSEND_WEBHOOK_SECRET": SECRET}
    found = settings_of(None, HERE, {**own, "STORE_TEXTS": "x", "DATABASE_URI": "y", "HOME": "z"})
    assert found.warnings == []
    assert set(found.environment) == {"ZIMSEND_WEBHOOK_SECRET"}
    for wrong in ("ZIMSEND_WEBHOOK_SECRETS", "ZIMSEND_PUBLIC_URI", "SMSCX_WEBHOOK_TOKENS"):
        (told,) = settings_of(None, HERE, {**own, wrong: "x"}).warnings
        assert told.startswith(f"{wrong}: no setting has this name")


def test_what_has_no_effect_is_told_in_the_hosts_own_log(
    embed: Embed, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        embed(SETTINGS | {"LOG_LEVEL": "debug", "PORT": 80}, migrate=False)
    assert [record.getMessage() for record in caplog.records] == [
        "PORT: has no effect inside another program",
        "LOG_LEVEL: has no effect inside another program",
    ]


def test_a_disk_that_the_host_empties_is_refused(
    embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNO", "web.1")
    with pytest.raises(ConfigError, match="Heroku"):
        embed(migrate=False)


def test_it_is_the_file_of_nobody(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.env` is the host's, and relative paths count from its folder, not from the current one."""
    (tmp_path / ".env").write_text("RETENTION_DAYS=wrong\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    embedded = embed()
    assert client_of(embedded).get("/sms/readyz").status_code in (200, 503)
    assert (tmp_path / "receiver.db").exists()
    assert not list(elsewhere.iterdir())
