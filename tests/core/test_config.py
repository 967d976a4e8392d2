"""The settings: defaults, good values, and bad ones that stop the start with one plain line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from receiver import ConfigError, times
from receiver.config import NAMES, SETTINGS, Config, unknown_in
from receiver.environment import Environment
from receiver.sqlite_file import EPHEMERAL_HOSTS
from tests.server import ROOT

SECRET = "whsec_0123456789abcdef"
OTHER = "whsec_fedcba9876543210"
NAME = "ZIMSEND_WEBHOOK_SECRET"


#: What a setting needs beside it.
NEEDS = {
    setting.name: {setting.needs: "needed" * 4} for setting in SETTINGS if setting.needs is not None
}


def read(**environ: str) -> Config:
    return Config.from_env({NAME: SECRET, **environ})


def mounts(*folders: str) -> Callable[[Path], bool]:
    """A machine on which these are mount points, in place of `os.path.ismount`."""
    return lambda folder: str(folder) in ("/", *folders)


def refused(**environ: str) -> ConfigError:
    """The error that these settings give; it always names one variable, in one line."""
    with pytest.raises(ConfigError) as caught:
        read(**environ)
    error = caught.value
    assert str(error) == f"{error.name}: {error.problem}"
    assert len(str(error).splitlines()) == 1
    assert error.problem
    assert error.__suppress_context__ or error.__context__ is None  # no second traceback
    return error


TOKEN = "tok_0123456789abcdefghij"

DEFAULTS: dict[str, Any] = {
    "webhook_secrets": (SECRET.encode(),),
    "database_url": "sqlite:///receiver.db",
    "allow_ephemeral_sqlite": False,
    "port": 3000,
    "handlers": ("handlers",),
    "embedded_worker": True,
    "retention": 90 * times.DAY,
    "max_body_bytes": 262_144,
    "text_mode": "full",
    "api_key": None,
    "client_id": None,
    "device_id": None,
    "api_url": "https://api.zimsend.com/v1",
    "smscx_tokens": (),
    "smscx_api_key": None,
    "smscx_sender": None,
    "smscx_api_url": "https://api.sms.cx",
    "public_url": None,
    "timezone": ZoneInfo("UTC"),
    "log_format": "text",
    "log_level": "info",
}


@pytest.mark.parametrize("field", DEFAULTS)
def test_defaults(field: str) -> None:
    assert getattr(read(), field) == DEFAULTS[field]


@pytest.mark.parametrize("field", ["web_concurrency", "web_threads"])
def test_gunicorns_sizes_have_defaults(field: str) -> None:
    assert getattr(read(), field) >= 1


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_empty_is_unset(setting: Any) -> None:
    if setting.name == NAME:  # no other provider is set up
        assert refused(**{setting.name: ""}).name == setting.name
    else:
        assert read(**{setting.name: ""}) == read()


GOOD: list[tuple[str, str, str, Any]] = [
    (NAME, SECRET, "webhook_secrets", (SECRET.encode(),)),
    (NAME, f" {SECRET} ", "webhook_secrets", (SECRET.encode(),)),
    (NAME, f"{SECRET},{OTHER}", "webhook_secrets", (SECRET.encode(), OTHER.encode())),
    (NAME, f"{SECRET} , {OTHER}", "webhook_secrets", (SECRET.encode(), OTHER.encode())),
    (NAME, "one%2Ctwo%2cthree-four", "webhook_secrets", (b"one,two%2cthree-four",)),
    (NAME, "%2C" * 16, "webhook_secrets", (b"," * 16,)),
    (NAME, "é" * 8, "webhook_secrets", ("é".encode() * 8,)),
    (NAME, "0123456789abcde\udcff", "webhook_secrets", (b"0123456789abcde\xff",)),
    (NAME, "a b c d e f g h i", "webhook_secrets", (b"a b c d e f g h i",)),
    ("DATABASE_URL", "sqlite:////var/lib/r.db", "database_url", "sqlite:////var/lib/r.db"),
    ("DATABASE_URL", "postgres://u:p@h/d", "database_url", "postgres://u:p@h/d"),
    ("ALLOW_EPHEMERAL_SQLITE", "0", "allow_ephemeral_sqlite", False),
    ("ALLOW_EPHEMERAL_SQLITE", "1", "allow_ephemeral_sqlite", True),
    ("ZIMSEND_API_KEY", " zs_live_1 ", "api_key", b"zs_live_1"),
    ("ZIMSEND_CLIENT_ID", "client_1", "client_id", b"client_1"),
    ("ZIMSEND_DEVICE_ID", " dev 1 ", "device_id", "dev 1"),
    ("ZIMSEND_DEVICE_ID", " ", "device_id", None),
    ("ZIMSEND_API_URL", "http://127.0.0.1:5040/v1", "api_url", "http://127.0.0.1:5040/v1"),
    ("ZIMSEND_API_URL", "https://zimsend.example/v2/", "api_url", "https://zimsend.example/v2"),
    ("SMSCX_WEBHOOK_TOKEN", TOKEN, "smscx_tokens", (TOKEN.encode(),)),
    (
        "SMSCX_WEBHOOK_TOKEN",
        f"{TOKEN}, {TOKEN}2",
        "smscx_tokens",
        (TOKEN.encode(), b"%s2" % TOKEN.encode()),
    ),
    ("SMSCX_API_KEY", "key_1", "smscx_api_key", b"key_1"),
    ("SMSCX_FROM", "Boutique", "smscx_sender", "Boutique"),
    ("SMSCX_API_URL", "http://127.0.0.1:5041/", "smscx_api_url", "http://127.0.0.1:5041"),
    ("PUBLIC_URL", " https://sms.example.com/ ", "public_url", "https://sms.example.com"),
    ("PUBLIC_URL", "https://1a2b.ngrok.app", "public_url", "https://1a2b.ngrok.app"),
    ("PUBLIC_URL", "https://example.com/sms/in", "public_url", "https://example.com/sms/in"),
    ("PUBLIC_URL", " ", "public_url", None),
    ("PUBLIC_URL", "http://localhost:3000", "public_url", "http://localhost:3000"),
    ("PUBLIC_URL", "http://127.0.0.2", "public_url", "http://127.0.0.2"),
    ("PUBLIC_URL", "http://[::1]:3000", "public_url", "http://[::1]:3000"),
    ("PUBLIC_URL", "https://[2001:db8::1]:8443", "public_url", "https://[2001:db8::1]:8443"),
    ("V1_API_KEY", " own ", "v1_api_key", b"own"),
    ("V1_CLIENT_ID", "shop", "v1_client_id", b"shop"),
    ("V1_READ_KEY", "reads", "v1_read_key", b"reads"),
    ("DEFAULT_COUNTRY", " fr ", "default_country", "FR"),
    ("PORT", "1", "port", 1),
    ("PORT", "65535", "port", 65_535),
    ("PORT", " 8080 ", "port", 8080),
    ("PORT", "08080", "port", 8080),
    ("BIND", "[::1]", "bind", "::1"),
    ("BIND", " 127.0.0.1 ", "bind", "127.0.0.1"),
    ("TRUSTED_PROXIES", "2", "trusted_proxies", 2),
    ("WEB_CONCURRENCY", "4", "web_concurrency", 4),
    ("WEB_THREADS", "1", "web_threads", 1),
    ("HANDLERS", "a", "handlers", ("a",)),
    ("HANDLERS", "handlers.log, myapp.alerts", "handlers", ("handlers.log", "myapp.alerts")),
    ("EMBEDDED_WORKER", "0", "embedded_worker", False),
    ("EMBEDDED_WORKER", "1", "embedded_worker", True),
    ("RETENTION_DAYS", "1", "retention", times.DAY),
    ("RETENTION_DAYS", "365", "retention", 365 * times.DAY),
    ("MAX_BODY_BYTES", "1048576", "max_body_bytes", 1_048_576),
    ("STORE_TEXT", "full", "text_mode", "full"),
    ("STORE_TEXT", "masked", "text_mode", "masked"),
    ("STORE_TEXT", " None ", "text_mode", "none"),
    ("TIMEZONE", "Europe/Paris", "timezone", ZoneInfo("Europe/Paris")),
    ("TIMEZONE", "america/new_york", "timezone", ZoneInfo("America/New_York")),
    ("TIMEZONE", "utc", "timezone", ZoneInfo("UTC")),
    ("LOG_FORMAT", "json", "log_format", "json"),
    ("LOG_FORMAT", "TEXT", "log_format", "text"),
    ("LOG_LEVEL", "debug", "log_level", "debug"),
    ("LOG_LEVEL", "WARNING", "log_level", "warning"),
]


@pytest.mark.parametrize(("name", "text", "field", "value"), GOOD)
def test_good_values(name: str, text: str, field: str, value: Any) -> None:
    needed = NEEDS.get(name, {})
    config = read(**needed, **{name: text})
    assert getattr(config, field) == value
    if needed:
        return
    unchanged = {f.name: None for f in dataclasses.fields(config) if f.name != field}
    for other in unchanged:
        assert getattr(config, other) == getattr(read(), other)


BAD: list[tuple[str, str]] = [
    (NAME, " "),
    (NAME, "short"),
    (NAME, "x" * 15),
    (NAME, f"{' ' * 20}short{' ' * 20}"),
    (NAME, f"{SECRET},"),
    (NAME, f",{SECRET}"),
    (NAME, f"{SECRET},,{OTHER}"),
    (NAME, f"{SECRET},short"),
    (NAME, "one-half-of-it,other"),
    (NAME, "%2C" * 15),
    ("DATABASE_URL", "receiver.db"),
    ("DATABASE_URL", "/var/lib/receiver.db"),
    ("DATABASE_URL", "sqlite:receiver.db"),
    ("DATABASE_URL", "://"),
    *[
        (name, text)
        for name in ("PORT", "WEB_CONCURRENCY", "WEB_THREADS", "RETENTION_DAYS", "MAX_BODY_BYTES")
        for text in ("0", "-1", "+5", "x", "1.5", "1e3", "5_000", "٣", "²", "5 5", "9" * 30)
    ],
    ("BIND", "localhost:80"),
    ("TRUSTED_PROXIES", "-1"),
    ("PORT", "65536"),
    ("PORT", "$PORT"),
    ("WEB_CONCURRENCY", "1000"),
    ("WEB_THREADS", "100000"),
    ("RETENTION_DAYS", "3651"),
    ("RETENTION_DAYS", "90d"),
    ("MAX_BODY_BYTES", "256k"),
    ("MAX_BODY_BYTES", "999999999999"),
    ("HANDLERS", ","),
    ("HANDLERS", "a,"),
    ("HANDLERS", "a,,b"),
    ("HANDLERS", "my-app"),
    ("HANDLERS", "my app"),
    ("HANDLERS", "a..b"),
    ("HANDLERS", ".a"),
    ("HANDLERS", "1a"),
    ("HANDLERS", "a/b.py"),
    ("HANDLERS", "a:register"),
    ("HANDLERS", "a\nb"),
    ("HANDLERS", "a,b,a"),
    ("ALLOW_EPHEMERAL_SQLITE", "yes"),
    ("ALLOW_EPHEMERAL_SQLITE", "true"),
    ("EMBEDDED_WORKER", "2"),
    ("EMBEDDED_WORKER", "yes"),
    ("EMBEDDED_WORKER", "true"),
    ("STORE_TEXT", "partial"),
    ("STORE_TEXT", "0"),
    ("ZIMSEND_API_KEY", "zs_live_é"),
    ("ZIMSEND_CLIENT_ID", "client_1\nX-Other: 1"),
    ("ZIMSEND_DEVICE_ID", "dev_é"),
    ("ZIMSEND_DEVICE_ID", "dev\x7f"),
    ("SMSCX_WEBHOOK_TOKEN", "x" * 23),
    ("SMSCX_WEBHOOK_TOKEN", f"{TOKEN},short"),
    ("SMSCX_WEBHOOK_TOKEN", f"{TOKEN}/more"),
    ("SMSCX_WEBHOOK_TOKEN", f"{TOKEN}é"),
    ("SMSCX_API_KEY", "key_é"),
    ("SMSCX_FROM", "Café"),
    *[
        (name, text)
        for name in ("ZIMSEND_API_URL", "SMSCX_API_URL", "PUBLIC_URL")
        for text in (
            *("sms.example.com", "//sms.example.com", "ftp://example.com", "https://", "https:"),
            *("http://sms.example.com", "http://10.0.0.1", "http://localhost.example.com"),
            *("https://user:pass@example.com", "https://key@example.com", "https://exa mple.com"),
            *("https://example.com?a=1", "https://example.com/#a", "https://example.com:port"),
            *("https://example.com:99999", "https://exämple.com", "https://[::1", "http://[::2]"),
            *("https://example.com/é", "https://example.com/a b", "https://a\nb", "https://:443"),
        )
    ],
    ("PUBLIC_URL", "https://sms.example.com/webhooks/zimsend"),
    ("PUBLIC_URL", "https://sms.example.com/webhooks/zimsend/"),
    *[
        ("TIMEZONE", text)
        for text in ("Paris", "Europe", "Europe/", "../etc/passwd", "/etc/localtime", "+01:00", "é")
    ],
    ("V1_API_KEY", "clé"),
    ("V1_CLIENT_ID", "a\nb"),
    ("V1_READ_KEY", "\x7f"),
    ("DEFAULT_COUNTRY", "FRA"),
    ("DEFAULT_COUNTRY", "33"),
    ("LOG_FORMAT", "xml"),
    ("LOG_LEVEL", "loud"),
    ("LOG_LEVEL", "10"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_bad_values_stop_the_start_and_name_the_variable(name: str, text: str) -> None:
    assert refused(**NEEDS.get(name, {}), **{name: text}).name == name


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_tried_above(setting: Any) -> None:
    assert setting.name in {name for name, *_ in GOOD}
    assert setting.name in {name for name, _ in BAD}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("PORT", "70000", "1 to 65535"),
        ("RETENTION_DAYS", "0", "1 to 3650"),
        ("STORE_TEXT", "some", "full, masked, none"),
        ("TIMEZONE", "Paris", "Europe/Paris"),
        ("LOG_LEVEL", "loud", "debug, info, warning, error"),
        ("HANDLERS", "a,my-app", "'my-app'"),
        ("HANDLERS", "a,b,a", "'a' stands there twice"),
        ("DATABASE_URL", "receiver.db", "sqlite:///"),
        ("PUBLIC_URL", "http://sms.example.com", "https://"),
        ("PUBLIC_URL", "https://sms.example.com/webhooks/zimsend", "without /webhooks/zimsend"),
        (NAME, "short", "16 bytes"),
        (NAME, f"{SECRET},short", "secret 2 of 2"),
        (NAME, f"{SECRET},short", "%2C"),
    ],
)
def test_the_line_says_what_is_wrong(name: str, text: str, told: str) -> None:
    assert told in refused(**{name: text}).problem


def test_without_a_secret_it_does_not_start() -> None:
    with pytest.raises(ConfigError, match="ZIMSEND_WEBHOOK_SECRET: not set"):
        Config.from_env({})


# --- how values are written


@pytest.mark.parametrize(
    "written",
    ["masked\n", "masked\r\n", "\t masked", "'masked'", '"masked"', " 'masked' \n", '"masked \r"',
     "\"'masked'\"", "\u00a0masked"],
)  # fmt: skip
def test_blanks_line_ends_and_a_pair_of_quotes_do_not_count(written: str) -> None:
    assert read(STORE_TEXT=written) == read(STORE_TEXT="masked")


@pytest.mark.parametrize("empty", ["", " ", "\r\n", "''", '""', '" "'])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_what_is_empty_without_them_is_unset(setting: Any, empty: str) -> None:
    if setting.name == NAME:  # no other provider is set up
        assert "not set" in refused(**{setting.name: empty}).problem
    else:
        assert read(**{setting.name: empty}) == read()


@pytest.mark.parametrize(
    ("written", "secrets"),
    [
        (f'"{SECRET}"', (SECRET,)),
        (f"'{SECRET},{OTHER}'", (SECRET, OTHER)),
        (f"'{SECRET}','{OTHER}'", (SECRET, OTHER)),
        (f'"{SECRET}", {OTHER}\r\n', (SECRET, OTHER)),
        # No pair: one of them is a part of the secret.
        (f"'{SECRET}", (f"'{SECRET}",)),
        (f"{SECRET}'", (f"{SECRET}'",)),
        (f"'{SECRET}\"", (f"'{SECRET}\"",)),
        ("it's a long secret", ("it's a long secret",)),
    ],
)
def test_quotes_around_secrets(written: str, secrets: tuple[str, ...]) -> None:
    assert read(**{NAME: written}).webhook_secrets == tuple(s.encode() for s in secrets)


# --- names


def test_other_variables_are_none_of_its_business() -> None:
    assert read(PATH="/bin", WHATEVER="x") == read()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("STORE_TEXTS", "STORE_TEXT"),
        ("STORE_TXT", "STORE_TEXT"),
        ("SOTRE_TEXT", "STORE_TEXT"),
        ("STORETEXT", "STORE_TEXT"),
        ("STORE-TEXT", "STORE_TEXT"),
        ("store_text", "STORE_TEXT"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABASE_URLS", "DATABASE_URL"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("RETENTION_DAY", "RETENTION_DAYS"),
        ("RETENTION_DYAS", "RETENTION_DAYS"),
        ("RETENSION_DAY", "RETENTION_DAYS"),
    ],
)
def test_a_misspelt_name_that_could_expose_or_lose_stops_the_start(wrong: str, right: str) -> None:
    error = refused(**{wrong: "something"})
    assert error.name == wrong
    assert right in error.problem


def test_it_stops_also_beside_the_right_one_unless_both_say_the_same() -> None:
    assert refused(STORE_TEXT="full", STORE_TEXTS="none").name == "STORE_TEXTS"
    assert read(STORE_TEXT="none", STORE_TEXTS="none").text_mode == "none"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("LOG_LEVELS", "LOG_LEVEL"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("WEB_THREAD", "WEB_THREADS"),
        ("PUBLIC_URI", "PUBLIC_URL"),
        ("HANDLER", "HANDLERS"),
        ("ZIMSEND_APIKEY", "ZIMSEND_API_KEY"),
        ("FORWARD_URI", "FORWARD_URL"),
        ("ZIMSEND_SECRET", None),
        ("ZIMSEND_TIMEOUT", None),
        ("FORWARD_TIMEOUT", None),
    ],
)
def test_another_misspelt_name_is_a_warning(wrong: str, right: str | None) -> None:
    environ = {NAME: SECRET, wrong: "something"}
    assert Config.from_env(environ) == read()
    (line,) = unknown_in(environ)
    assert line.startswith(f"{wrong}: ")
    assert "something" not in line
    if right is not None:
        assert right in line


def test_where_the_secret_is_missing_its_misspelt_name_is_told() -> None:
    with pytest.raises(ConfigError, match="ZIMSEND_WEBHOOK_SECRT is set") as caught:
        Config.from_env({"ZIMSEND_WEBHOOK_SECRT": SECRET})
    assert caught.value.name == NAME


def test_an_empty_misspelt_name_is_not_set() -> None:
    assert read(STORE_TEXTS=" ") == read()
    assert unknown_in({NAME: SECRET, "ZIMSEND_FOO": ""}) == []


#: As hosts, databases, builders and other programs set them.
_OF_OTHERS = """
HOME HOSTNAME LANG LANGUAGE LOGNAME MAIL OLDPWD PATH PWD SHELL SHLVL TERM TMPDIR TZ USER
VIRTUAL_ENV PYTHONPATH PYTHONUNBUFFERED PYTHON_VERSION PIP_CACHE_DIR GUNICORN_CMD_ARGS
SERVER_SOFTWARE FLASK_APP FLASK_DEBUG FLASK_ENV WERKZEUG_RUN_MAIN INVOCATION_ID JOURNAL_STREAM
LISTEN_FDS LISTEN_PID NOTIFY_SOCKET SYSTEMD_EXEC_PID HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY
http_proxy no_proxy SSL_CERT_FILE REQUESTS_CA_BUNDLE LC_ALL LC_CTYPE DEBIAN_FRONTEND
DATABASE_POOL DATABASE_POOL_SIZE DATABASE_SSL DATABASE_SSLMODE DATABASE_HOST DATABASE_PORT
DATABASE_NAME DATABASE_USER DATABASE_PASSWORD DATABASE_TLS DATABASE_UID DATABASE_PWD
DATABASE_DSN DATABASE_DB DATABASE_ID DATABASE_KEY DATABASE_TYPE DATABASE_CA DATABASE_URL_2
DATABASE_URL1 DATABASE_URL_UNPOOLED DATABASE_PRIVATE_URL DATABASE_PUBLIC_URL
DATABASE_CONNECTION_POOL_URL TEST_DATABASE_URL DB_URL DB_HOST SQLALCHEMY_DATABASE_URI DIRECT_URL
POSTGRES_URL POSTGRES_PASSWORD PGHOST PGUSER PGPASSWORD PGDATABASE PGSSLMODE PGDATA REDIS_URL
MONGODB_URI HEROKU_POSTGRESQL_PINK_URL STORE_ID STORE_NAME STORE_URL LOG_FILE LOG_DIR LOG_COLOR
LOGGING RUST_LOG NPM_CONFIG_LOGLEVEL WEB_CONCURRENCY WEB_MEMORY WEB_PORT RAILS_MAX_THREADS
MAX_THREADS NEXT_PUBLIC_URL PUBLIC_KEY PUBLIC_IP PUBLIC_DIR PUBLIC_PATH _HANDLER DYNO DYNO_RAM
HEROKU_APP_NAME HEROKU_APP_ID HEROKU_SLUG_COMMIT HEROKU_RELEASE_VERSION SOURCE_VERSION STACK
FORWARDED_ALLOW_IPS PORT DOKKU_APP_NAME DOKKU_APP_TYPE GIT_REV USE_PROCFILE RENDER
RENDER_DISCOVERY_SERVICE RENDER_EXTERNAL_HOSTNAME RENDER_EXTERNAL_URL RENDER_GIT_BRANCH
RENDER_GIT_COMMIT RENDER_GIT_REPO_SLUG RENDER_INSTANCE_ID RENDER_SERVICE_ID RENDER_SERVICE_NAME
RENDER_SERVICE_TYPE RENDER_CPU_COUNT RENDER_WEB_CONCURRENCY IS_PULL_REQUEST
RAILWAY_PUBLIC_DOMAIN RAILWAY_PRIVATE_DOMAIN RAILWAY_TCP_PROXY_DOMAIN RAILWAY_PROJECT_NAME
RAILWAY_PROJECT_ID RAILWAY_ENVIRONMENT_NAME RAILWAY_ENVIRONMENT_ID RAILWAY_SERVICE_NAME
RAILWAY_SERVICE_ID RAILWAY_REPLICA_ID RAILWAY_REPLICA_REGION RAILWAY_DEPLOYMENT_ID
RAILWAY_VOLUME_NAME RAILWAY_VOLUME_MOUNT_PATH RAILWAY_STATIC_URL RAILWAY_GIT_COMMIT_SHA
NIXPACKS_METADATA FLY_APP_NAME FLY_MACHINE_ID FLY_ALLOC_ID FLY_REGION FLY_PUBLIC_IP
FLY_IMAGE_REF FLY_MACHINE_VERSION FLY_PRIVATE_IP FLY_PROCESS_GROUP FLY_VM_MEMORY_MB
PRIMARY_REGION K_SERVICE K_REVISION K_CONFIGURATION CI GITHUB_ACTIONS GITHUB_ACTION GITHUB_ACTOR
GITHUB_API_URL GITHUB_BASE_REF GITHUB_ENV GITHUB_EVENT_NAME GITHUB_GRAPHQL_URL GITHUB_HEAD_REF
GITHUB_JOB GITHUB_REF GITHUB_REPOSITORY GITHUB_RETENTION_DAYS GITHUB_RUN_ID GITHUB_SERVER_URL
GITHUB_SHA GITHUB_STEP_SUMMARY GITHUB_TOKEN GITHUB_WORKFLOW GITHUB_WORKSPACE RUNNER_ARCH
RUNNER_DEBUG RUNNER_NAME RUNNER_OS RUNNER_TEMP RUNNER_TOOL_CACHE SENTRY_DSN SENTRY_ENVIRONMENT
DD_API_KEY DD_TRACE_ENABLED NEW_RELIC_LICENSE_KEY OTEL_SERVICE_NAME AWS_ACCESS_KEY_ID
AWS_SECRET_ACCESS_KEY AWS_REGION SMTP_URL EMAIL_HOST EMAIL_PORT EMAIL_USER EMAIL_ID API_KEY
API_URL BASE_URL SECRET_KEY_BASE DJANGO_SETTINGS_MODULE KUBERNETES_SERVICE_HOST KUBERNETES_PORT
RECEIVER_LIFE_FD RECEIVER_WAKING_FD STRIPE_API_KEY OPENAI_API_KEY TWILIO_AUTH_TOKEN
COMPOSE_PROJECT_NAME
"""


def test_no_other_programs_variable_is_taken_for_a_misspelling() -> None:
    environ = {NAME: SECRET, "DATABASE_URL": "postgres://h/d", "RETENTION_DAYS": "30"}
    others = dict.fromkeys(_OF_OTHERS.split(), "something") | {"PORT": "80", "WEB_CONCURRENCY": "2"}
    assert unknown_in(environ | others) == []
    assert unknown_in(environ | dict.fromkeys(NAMES, "something")) == []
    assert Config.from_env(environ | others).retention == 30 * times.DAY


# --- settings that need another


@pytest.mark.parametrize("name", NEEDS)
def test_a_setting_without_the_one_that_it_needs_is_refused(name: str) -> None:
    (needed,) = NEEDS[name]
    for missing in ("", " "):
        error = refused(**{name: "given", needed: missing})
        assert error.name == needed
        assert name in error.problem


def test_key_and_client_id_need_each_other() -> None:
    assert {"ZIMSEND_API_KEY", "ZIMSEND_CLIENT_ID"} <= set(NEEDS)


# --- relative paths


def test_a_relative_path_counts_from_the_folder_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "home"
    folder.mkdir()

    def url(**variables: str) -> str:
        return Config.from_env(Environment({NAME: SECRET, **variables}, folder)).database_url

    assert url() == f"sqlite:///{folder}/receiver.db"
    assert url(DATABASE_URL="sqlite:///data/r.db") == f"sqlite:///{folder}/data/r.db"
    assert url(DATABASE_URL="sqlite:////data/r.db") == "sqlite:////data/r.db"
    for other in ("postgres://h/d", "sqlite:///:memory:", "sqlite:///file:r.db?mode=ro"):
        assert url(DATABASE_URL=other) == other
    # One that lies in the current folder would be forgotten, whether or not there is another.
    (tmp_path / "receiver.db").touch()
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            url()
        for told in (f"{tmp_path}/receiver.db", f"{folder}/receiver.db"):
            assert told in caught.value.problem
        assert len(str(caught.value).splitlines()) == 1
        (folder / "receiver.db").touch()
    assert url(DATABASE_URL=f"sqlite:///{tmp_path}/receiver.db")
    monkeypatch.chdir(folder)
    assert url() == f"sqlite:///{folder}/receiver.db"


@pytest.mark.parametrize(
    "environ",
    [
        {NAME: "hunter2"},
        {NAME: "long-enough-for-it,hunter2"},
        {NAME: "long-enough-hunter2,"},
        {NAME: "hunter2,hunter2,hunter2"},
        {NAME: "long-enough-hunter2", "PORT": "x"},
        {NAME: "long-enough-hunter2", "DATABASE_URL": "user:hunter2@host/db"},
        {NAME: "long-enough-hunter2", "DATABASE_URL": "postgres//user:hunter2@host/db"},
        {NAME: "long-enough-hunter2", "PUBLIC_URL": "https://user:hunter2@example.com"},
        {NAME: "long-enough-hunter2", "ZIMSEND_API_KEY": "hunter2\0", "ZIMSEND_CLIENT_ID": "c"},
        {NAME: "long-enough-hunter2", "DATABASE_URI": "postgres://user:hunter2@host/db"},
    ],
)
def test_no_error_holds_a_secret(environ: dict[str, str]) -> None:
    error = refused(**environ)
    for text in (str(error), repr(error), error.problem):
        assert "hunter2" not in text
        assert "long-enough" not in text


def test_no_repr_holds_a_secret() -> None:
    config = read(DATABASE_URL="postgres://user:hunter2@host/db")
    for text in (repr(config), str(config), f"{config}", repr([config]), repr(SETTINGS)):
        assert SECRET not in text
        assert "hunter2" not in text
        assert "0123456789" not in text


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().port = 1  # type: ignore[misc]


# --- disks that a host empties

PROGRAM = str(ROOT)


def on_a_host(
    database_url: str, ismount: Callable[[Path], bool], mark: str = "DYNO", **environ: str
) -> Config:
    environ = {NAME: SECRET, mark: "web.1", "DATABASE_URL": database_url, **environ}
    return Config.from_env(environ, ismount)


@pytest.mark.parametrize("mark", EPHEMERAL_HOSTS)
def test_sqlite_on_a_disk_that_the_host_empties_is_refused(mark: str) -> None:
    """The line says why, names the mark, and says the three things that one can do."""
    for database_url in ("", "sqlite:///receiver.db", "sqlite:////app/data/receiver.db"):
        with pytest.raises(ConfigError) as caught:
            on_a_host(database_url, mounts(), mark)
        assert caught.value.name == "DATABASE_URL"
        line = str(caught.value)
        assert len(line.splitlines()) == 1
        for told in (EPHEMERAL_HOSTS[mark], mark, "PostgreSQL", "volume", "ALLOW_EPHEMERAL_SQLITE"):
            assert told in line


@pytest.mark.parametrize(
    ("database_url", "folders"),
    [
        ("sqlite:////tmp/receiver.db", ("/tmp",)),
        ("sqlite:////var/tmp/receiver.db", ("/var/tmp",)),
        ("sqlite:////dev/shm/receiver.db", ("/dev/shm",)),
        # What the program lies on came with the release, and goes with it.
        ("sqlite:///receiver.db", (PROGRAM,)),
        (f"sqlite:///{PROGRAM}/data/receiver.db", (PROGRAM,)),
        # A volume beside the database does not help.
        ("sqlite:////app/receiver.db", ("/data",)),
        ("sqlite:////data/../app/receiver.db", ("/data",)),
        ("sqlite:////database/receiver.db", ("/data",)),
        ("sqlite:////data", ("/data",)),
    ],
)
def test_not_every_mount_is_a_volume(database_url: str, folders: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        on_a_host(database_url, mounts(*folders))


@pytest.mark.parametrize("mark", EPHEMERAL_HOSTS)
@pytest.mark.parametrize(
    ("database_url", "folders"),
    [
        ("sqlite:////data/receiver.db", ("/data",)),
        ("sqlite:////data/deep/er/receiver.db", ("/data",)),
        ("sqlite:////tmp/volume/receiver.db", ("/tmp", "/tmp/volume")),
        # A volume inside the program's folder.
        (f"sqlite:///{PROGRAM}/data/receiver.db", (f"{PROGRAM}/data",)),
        (f"sqlite:///{PROGRAM}/data/receiver.db", (PROGRAM, f"{PROGRAM}/data")),
    ],
)
def test_sqlite_on_a_volume_is_allowed(
    mark: str, database_url: str, folders: tuple[str, ...]
) -> None:
    assert on_a_host(database_url, mounts(*folders), mark).database_url == database_url


def test_a_link_to_a_volume_is_followed(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "volume")
    url = f"sqlite:///{tmp_path / 'link' / 'receiver.db'}"
    volume = str((tmp_path / "volume").resolve())
    assert on_a_host(url, mounts(volume)).database_url == url


@pytest.mark.parametrize("mark", EPHEMERAL_HOSTS)
def test_it_can_be_allowed(mark: str) -> None:
    config = on_a_host("sqlite:///receiver.db", mounts(), mark, ALLOW_EPHEMERAL_SQLITE="1")
    assert config.allow_ephemeral_sqlite


@pytest.mark.parametrize("url", ["postgres://u:p@h/d", "postgresql://h/d"])
def test_other_engines_may_run_anywhere(url: str) -> None:
    def never(folder: Path) -> bool:
        raise AssertionError("nobody needs to know")

    assert on_a_host(url, never).database_url == url
    # Nor does SQLite on a machine of one's own; and an empty mark is none.
    assert Config.from_env({NAME: SECRET}, never) == read()
    assert Config.from_env({NAME: SECRET, "DYNO": ""}, never) == read()
