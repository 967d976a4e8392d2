"""The settings: defaults, good values, and bad ones that stop the start with one plain line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from receiver import ConfigError, times
from receiver.config import EPHEMERAL_HOSTS, SETTINGS, Config
from tests.server import ROOT

SECRET = "whsec_0123456789abcdef"
OTHER = "whsec_fedcba9876543210"
NAME = "ZIMSEND_WEBHOOK_SECRET"


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
    "public_url": None,
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
    if setting.default is None:
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
    ("PUBLIC_URL", " https://sms.example.com/ ", "public_url", "https://sms.example.com"),
    ("PUBLIC_URL", "https://1a2b.ngrok.app", "public_url", "https://1a2b.ngrok.app"),
    ("PUBLIC_URL", "https://example.com/sms/in", "public_url", "https://example.com/sms/in"),
    ("PUBLIC_URL", " ", "public_url", None),
    ("PUBLIC_URL", "http://localhost:3000", "public_url", "http://localhost:3000"),
    ("PUBLIC_URL", "http://127.0.0.2", "public_url", "http://127.0.0.2"),
    ("PUBLIC_URL", "http://[::1]:3000", "public_url", "http://[::1]:3000"),
    ("PUBLIC_URL", "https://[2001:db8::1]:8443", "public_url", "https://[2001:db8::1]:8443"),
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
    ("LOG_FORMAT", "json", "log_format", "json"),
    ("LOG_FORMAT", "TEXT", "log_format", "text"),
    ("LOG_LEVEL", "debug", "log_level", "debug"),
    ("LOG_LEVEL", "WARNING", "log_level", "warning"),
]


@pytest.mark.parametrize(("name", "text", "field", "value"), GOOD)
def test_good_values(name: str, text: str, field: str, value: Any) -> None:
    config = read(**{name: text})
    assert getattr(config, field) == value
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
        for text in ("0", "-1", "+5", "x", "1.5", "1e3", "5_000", "٣", "²", "5 5", "9" * 30, " ")
    ],
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
    *[
        (name, text)
        for name in ("ZIMSEND_API_URL", "PUBLIC_URL")
        for text in (
            *("sms.example.com", "//sms.example.com", "ftp://example.com", "https://", "https:"),
            *("http://sms.example.com", "http://10.0.0.1", "http://localhost.example.com"),
            *("https://user:pass@example.com", "https://key@example.com", "https://exa mple.com"),
            *("https://example.com?a=1", "https://example.com/#a", "https://example.com:port"),
            *("https://example.com:99999", "https://exämple.com", "https://[::1", "http://[::2]"),
            *("https://example.com/é", "https://example.com/a b", "https://a\nb", "https://:443"),
        )
    ],
    ("ZIMSEND_API_URL", " "),
    ("PUBLIC_URL", "https://sms.example.com/webhooks/zimsend"),
    ("PUBLIC_URL", "https://sms.example.com/webhooks/zimsend/"),
    ("LOG_FORMAT", "xml"),
    ("LOG_LEVEL", "loud"),
    ("LOG_LEVEL", "10"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_bad_values_stop_the_start_and_name_the_variable(name: str, text: str) -> None:
    assert refused(**{name: text}).name == name


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


def test_other_variables_are_none_of_its_business() -> None:
    assert read(PATH="/bin", WHATEVER="x") == read()


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
        {NAME: "long-enough-hunter2", "ZIMSEND_API_KEY": "hunter2\0"},
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
