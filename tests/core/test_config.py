"""The settings: defaults, good values, and bad ones that stop the start with one plain line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from receiver import ConfigError, times
from receiver.config import OF_PROVIDERS, SETTINGS, Config
from receiver.environment import Environment
from receiver.providers import PROVIDERS
from tests.core.settings import NAME, NEEDS, OTHER, SECRET, read, refused

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
    "sipgate_token_id": None,
    "sipgate_token": None,
    "sipgate_sms_id": "s0",
    "sipgate_api_url": "https://api.sipgate.com/v2",
    "send_with": (),
    "public_url": None,
    "alert_urls": (),
    "heartbeat_url": None,
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
    ("DATABASE_SCHEMA", "zimsend_2", "database_schema", "zimsend_2"),
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
    ("SIPGATE_TOKEN_ID", " token-ABC123 ", "sipgate_token_id", b"token-ABC123"),
    ("SIPGATE_TOKEN", "a:b", "sipgate_token", b"a:b"),
    ("SIPGATE_SMS_ID", "s12", "sipgate_sms_id", "s12"),
    ("SIPGATE_API_URL", "http://127.0.0.1:5042/v2/", "sipgate_api_url", "http://127.0.0.1:5042/v2"),
    ("SEND_WITH", "smscx", "send_with", ("smscx",)),
    ("SEND_WITH", "zimsend, SMSCX", "send_with", ("zimsend", "smscx")),
    ("PUBLIC_URL", " https://sms.example.com/ ", "public_url", "https://sms.example.com"),
    ("PUBLIC_URL", "https://1a2b.ngrok.app", "public_url", "https://1a2b.ngrok.app"),
    ("PUBLIC_URL", "https://example.com/sms/in", "public_url", "https://example.com/sms/in"),
    ("PUBLIC_URL", " ", "public_url", None),
    ("PUBLIC_URL", "http://localhost:3000", "public_url", "http://localhost:3000"),
    ("PUBLIC_URL", "http://127.0.0.2", "public_url", "http://127.0.0.2"),
    ("PUBLIC_URL", "http://[::1]:3000", "public_url", "http://[::1]:3000"),
    ("PUBLIC_URL", "https://[2001:db8::1]:8443", "public_url", "https://[2001:db8::1]:8443"),
    ("ALERT_URLS", " json://h/p ", "alert_urls", ("json://h/p",)),
    (
        "ALERT_URLS",
        "json://h, 'mailto://u:p@h?to=a,b' ,tgram://t/1",
        "alert_urls",
        ("json://h", "mailto://u:p@h?to=a,b", "tgram://t/1"),
    ),
    ("HEARTBEAT_URL", "https://hc-ping.com/0a1b", "heartbeat_url", "https://hc-ping.com/0a1b"),
    (
        "HEARTBEAT_URL",
        "http://kuma:3001/api/push/x?status=up",
        "heartbeat_url",
        "http://kuma:3001/api/push/x?status=up",
    ),
    ("V1_API_KEY", " own ", "v1_api_key", b"own"),
    ("V1_CLIENT_ID", "shop", "v1_client_id", b"shop"),
    ("V1_READ_KEY", "reads", "v1_read_key", b"reads"),
    ("METRICS_TOKEN", " a-token-of-16-ch ", "metrics_token", b"a-token-of-16-ch"),
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
    ("ADMIN_PASSWORD", "pä$$ word", "admin_password", "pä$$ word"),
    ("SECRET_KEY", "é" * 16, "secret_keys", ("é".encode() * 16,)),
    ("SECRET_KEY", f"{'k' * 32},{'%2C' * 32}", "secret_keys", (b"k" * 32, b"," * 32)),
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
    ("DATABASE_SCHEMA", "Zimsend"),
    ("DATABASE_SCHEMA", "zim-send"),
    ("DATABASE_SCHEMA", "pg_zimsend"),
    ("DATABASE_SCHEMA", "information_schema"),
    ("DATABASE_SCHEMA", "public"),
    ("DATABASE_SCHEMA", "z" * 41),
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
    ("SEND_WITH", ","),
    ("SMSCX_FROM", "ab"),
    ("SMSCX_FROM", "x" * 16),
    ("SEND_WITH", "zimsend,"),
    ("SEND_WITH", "zimsend,ZimSend"),
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
    *[("ALERT_URLS", text) for text in ("h/p", "json:h", "json://h json://i", "json://é", ",")],
    *[
        ("HEARTBEAT_URL", text)
        for text in ("hc-ping.com/x", "ftp://h/x", "https://", "https://h/ x")
    ],
    ("SIPGATE_TOKEN_ID", "token-ABC123:secret"),
    ("SIPGATE_TOKEN_ID", "token-é"),
    ("SIPGATE_TOKEN", "clé"),
    *[("SIPGATE_SMS_ID", text) for text in ("s0,s1", "s0/x", "s 0", "é", "..")],
    *[
        (name, text)
        for name in ("ZIMSEND_API_URL", "SMSCX_API_URL", "SIPGATE_API_URL", "PUBLIC_URL")
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
    ("PUBLIC_URL", "https://sms.example.com/webhooks/smscx"),
    ("PUBLIC_URL", f"https://sms.example.com/webhooks/smscx/{'t' * 24}"),
    *[
        ("TIMEZONE", text)
        for text in ("Paris", "Europe", "Europe/", "../etc/passwd", "/etc/localtime", "+01:00", "é")
    ],
    ("V1_API_KEY", "clé"),
    ("V1_CLIENT_ID", "a\nb"),
    ("V1_READ_KEY", "\x7f"),
    ("METRICS_TOKEN", "a-token-of-15-c"),
    ("METRICS_TOKEN", "jeton-qui-est-caché"),
    ("DEFAULT_COUNTRY", "FRA"),
    ("DEFAULT_COUNTRY", "33"),
    ("ADMIN_PASSWORD", "two\nlines"),
    ("ADMIN_PASSWORD", "\udcff"),
    ("SECRET_KEY", "k" * 31),
    ("SECRET_KEY", f"{'k' * 32},short"),
    ("SECRET_KEY", f"{'k' * 32},"),
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
    with pytest.raises(ConfigError, match="ZIMSEND_WEBHOOK_SECRET: not set") as caught:
        Config.from_env({})
    for name in OF_PROVIDERS:
        assert name in str(caught.value)


SETS_UP = [
    {"ZIMSEND_WEBHOOK_SECRET": SECRET},
    {"SMSCX_WEBHOOK_TOKEN": TOKEN},
    {"SIPGATE_TOKEN_ID": "token-ABC123", "SIPGATE_TOKEN": "secret"},
]


@pytest.mark.parametrize("environ", SETS_UP, ids=lambda environ: min(environ))
def test_any_one_provider_is_enough(environ: dict[str, str]) -> None:
    config = Config.from_env(environ)
    set_up = [provider for provider in PROVIDERS.values() if provider.is_set_up(config)]
    assert len(set_up) == 1
    assert min(environ).startswith(set_up[0].name.upper())


def test_every_provider_can_be_the_only_one() -> None:
    assert len(SETS_UP) == len(PROVIDERS)


@pytest.mark.parametrize("half", SETS_UP[2])
def test_half_of_sipgates_token_is_refused_by_the_name_of_the_other(half: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({half: SETS_UP[2][half]})
    assert caught.value.name in SETS_UP[2].keys() - {half}


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


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("", "http://127.0.0.1:81"),
        ("0.0.0.0", "http://127.0.0.1:81"),
        ("::", "http://[::1]:81"),
        ("::1", "http://[::1]:81"),
        ("10.0.0.5", "http://10.0.0.5:81"),
    ],
)
def test_commands_reach_the_service_where_it_listens(bind: str, url: str) -> None:
    assert read(BIND=bind, PORT="81").local_url == url


# --- settings that need another


@pytest.mark.parametrize("name", [s.name for s in SETTINGS if s.needs is not None])
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


@pytest.mark.parametrize(
    ("url", "read_as"),
    [
        ("postgres://u:p@h/d", "postgres://u:p@h/d?schema=zimsend"),
        ("postgresql:///d?host=/run", "postgresql:///d?host=/run&schema=zimsend"),
        ("postgres://u:p?p@h/d", "postgres://u:p?p@h/d?schema=zimsend"),
        ("postgres://h/d?sslmode=disable", "postgres://h/d?sslmode=disable&schema=zimsend"),
        ("sqlite:////r.db", "sqlite:////r.db"),
    ],
)
def test_the_schema_goes_with_the_url_of_postgresql(url: str, read_as: str) -> None:
    assert read(DATABASE_URL=url, DATABASE_SCHEMA="zimsend").database_url == read_as
