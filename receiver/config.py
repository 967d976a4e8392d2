"""The settings: one table of environment variables, read once into a frozen `Config`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from receiver import sqlite_file
from receiver.environment import Environment, clean
from receiver.errors import ConfigError
from receiver.event import TEXT_MODES
from receiver.misspelt import meant
from receiver.setting_values import (
    address,
    alert_urls,
    bearer_token,
    bind,
    country,
    credential,
    database_url,
    days,
    extension,
    flag,
    header,
    heartbeat_url,
    keys,
    module_names,
    names,
    number,
    one_of,
    password,
    port,
    public_url,
    schema,
    secrets,
    sender,
    token_id,
    tokens,
    zone,
)

#: The settings of which one at least must be there: each sets a provider up, the last two together.
OF_PROVIDERS = (
    "ZIMSEND_WEBHOOK_SECRET",
    "SMSCX_WEBHOOK_TOKEN",
    "SIPGATE_TOKEN_ID",
    "SIPGATE_TOKEN",
)


#: Names that begin so are ours, or nobody's.
PREFIXES = ("ZIMSEND_", "SMSCX_", "SIPGATE_", "FORWARD_")

#: What the built-in handlers read by themselves.
OF_HANDLERS = ("FORWARD_URL", "FORWARD_SECRET", "EMAIL_URL", "EMAIL_TO", "EMAIL_EVENTS")


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable: its name, where it goes in `Config`, what it is if unset, how it is read.

    :param default: the text that stands for an unset or empty variable.
    :param read: raises `ValueError` with what is wrong, never with a secret.
    :param needs: another setting, without which this one is refused.
    :param only_with: another setting, without which this one is as if it were not set.
    :param careful: whether texts could be exposed, or data lost, if its name were misspelt.
    :param secret: whether its value is shown to nobody.
    """

    name: str
    field: str
    default: str
    meaning: str
    read: Callable[[str], Any]
    needs: str | None = None
    only_with: str | None = None
    careful: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """What the service was told. Sizes in bytes, times in microseconds."""

    #: Empty where ZimSend is not set up.
    webhook_secrets: tuple[bytes, ...] = field(repr=False)
    database_url: str = field(repr=False)  # may hold a password
    database_schema: str
    allow_ephemeral_sqlite: bool
    bind: str | None
    port: int
    trusted_proxies: int
    web_concurrency: int
    web_threads: int
    handlers: tuple[str, ...]
    embedded_worker: bool
    retention: int
    max_body_bytes: int
    text_mode: str
    api_key: bytes | None = field(repr=False)
    client_id: bytes | None = field(repr=False)
    device_id: str | None
    api_url: str
    #: Empty where SMS.CX is not set up.
    smscx_tokens: tuple[bytes, ...] = field(repr=False)
    smscx_api_key: bytes | None = field(repr=False)
    smscx_sender: str | None
    smscx_api_url: str
    #: `None` where sipgate is not set up, as its token.
    sipgate_token_id: bytes | None = field(repr=False)
    sipgate_token: bytes | None = field(repr=False)
    sipgate_sms_id: str
    sipgate_api_url: str
    #: Names of providers; empty: the first that can send.
    send_with: tuple[str, ...]
    public_url: str | None
    #: `None` where the dashboard is off; the keys are then empty.
    admin_password: str | None = field(repr=False)
    secret_keys: tuple[bytes, ...] = field(repr=False)
    #: Of apprise; they hold secrets.
    alert_urls: tuple[str, ...] = field(repr=False)
    heartbeat_url: str | None = field(repr=False)
    timezone: ZoneInfo
    v1_api_key: bytes | None = field(repr=False)
    v1_client_id: bytes | None = field(repr=False)
    v1_read_key: bytes | None = field(repr=False)
    default_country: str | None
    metrics_token: bytes | None = field(repr=False)
    log_format: str
    log_level: str
    #: Tells where this machine reaches a service that is built into another program.
    here: Callable[[], str] | None = None

    @property
    def webhook_url(self) -> str | None:
        """Where ZimSend is to send its reports, if anybody has said how it reaches us."""
        return None if self.public_url is None else f"{self.public_url}/webhooks/zimsend"

    @property
    def in_addresses(self) -> tuple[str, ...]:
        """Secrets that are a part of an address, so that a log could show them."""
        return tuple(token.decode() for token in self.smscx_tokens)

    @property
    def local_url(self) -> str:
        """Where this machine itself reaches the service."""
        if self.here is not None:
            return self.public_url or self.here()
        host = {None: "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.bind, self.bind)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in str(host) else f"http://{host}:{self.port}"

    @property
    def webhook_secret(self) -> bytes:
        """The one that signs what this service itself sends as ZimSend would.

        :raises ConfigError: where ZimSend is not set up.
        """
        if not self.webhook_secrets:
            raise ConfigError("ZIMSEND_WEBHOOK_SECRET", "not set, and this needs it")
        return self.webhook_secrets[0]

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str], ismount: Callable[[Path], bool] = os.path.ismount
    ) -> Config:
        """Read every setting.

        :param ismount: whether a folder is a mount point; asked only for SQLite on a host that
            empties its disks.
        :raises ConfigError: at the first that is missing or wrong, or if the host would delete
            the database.
        """
        environment = Environment.of(environ)
        misspelt = misspelt_in(environment)
        if not any(environment.value(name) for name in OF_PROVIDERS):
            wrong = [name for name, right in misspelt.items() if right in OF_PROVIDERS]
            told = f"; {wrong[0]} is set, but no setting has this name" if wrong else ""
            if environment.looked_from is not None:
                told += f". There is no .env in {environment.looked_from} or above it"
            raise ConfigError(
                OF_PROVIDERS[0],
                "not set; give it the webhook's signing secret, or set another provider up, by "
                f"SMSCX_WEBHOOK_TOKEN, or by SIPGATE_TOKEN_ID and SIPGATE_TOKEN{told}",
            )
        values = {}
        for setting in SETTINGS:
            text = environment.value(setting.name)
            if setting.only_with is not None and not environment.value(setting.only_with):
                text = ""
            wrong = [name for name, right in misspelt.items() if right == setting.name]
            if setting.careful and any(environment.value(name) != text for name in wrong):
                raise ConfigError(wrong[0], f"no setting has this name; write {setting.name}")
            if text and setting.needs is not None and not environment.value(setting.needs):
                raise ConfigError(setting.needs, f"not set, and {setting.name} needs it")
            try:
                default = environment.defaults.get(setting.name, setting.default)
                values[setting.field] = setting.read(text or default)
            except ValueError as error:
                raise ConfigError(setting.name, str(error)) from None
        values["database_url"] = whole_url(
            values["database_url"], values["database_schema"], environment.folder
        )
        config = cls(**values)
        if not config.allow_ephemeral_sqlite:
            sqlite_file.refuse_ephemeral(config.database_url, environment, ismount)
        return config


def whole_url(url: str, schema: str, folder: Path) -> str:
    """A database's URL as all that opens it is given it, which then says the rest, too.

    :param schema: of PostgreSQL's, for the tables; empty: where they are is the URL's to say.
    :param folder: what the path of SQLite's file counts from, if it is relative.
    :raises ConfigError: if it would have been another file, from the current folder, that exists.
    """
    url = sqlite_file.placed(url, folder)
    if not schema or not url.startswith(("postgres://", "postgresql://")):
        return url
    return f"{url}{'&' if '?' in url.rpartition('@')[2] else '?'}schema={schema}"


def url_like_the_settings(text: str, config: Config, folder: Path) -> str:
    """A database's URL that was typed, read as `DATABASE_URL` is.

    Where it says itself in which schema the tables are, `DATABASE_SCHEMA` does not count.

    :raises ConfigError: as `whole_url`, and if it is no URL.
    """
    try:
        url = database_url(clean(text))
    except ValueError as error:
        raise ConfigError("DATABASE_URL", str(error)) from None
    says_schema = re.search("[?&]schema=", url.rpartition("@")[2])
    return whole_url(url, "" if says_schema else config.database_schema, folder)


def unknown_in(environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that is probably meant for us, and that no setting has."""
    environment = Environment.of(environ)
    misspelt = misspelt_in(environment)
    return [
        f"{name}: no setting has this name"
        + (f"; is {misspelt[name]} meant?" if name in misspelt else ", so it does nothing")
        for name in environment
        if environment.value(name)
        and (name in misspelt or (name.startswith(PREFIXES) and name not in NAMES))
    ]


def misspelt_in(environment: Environment) -> dict[str, str]:
    """The variables whose names are misspellings, and what is meant."""
    return {
        name: right for name in environment if environment.value(name) and (right := _meant(name))
    }


@cache
def _meant(name: str) -> str | None:
    """To compare all names takes milliseconds, and a start asks several times."""
    return meant(name, NAMES)


#: The table of docs/reference/settings.md follows this one; a test holds the two together.
SETTINGS = (
    Setting(
        "ZIMSEND_WEBHOOK_SECRET",
        "webhook_secrets",
        "",
        "the webhook's signing secret; several, separated by commas, while one is rotated",
        secrets,
        secret=True,
    ),
    Setting(
        "DATABASE_URL",
        "database_url",
        "sqlite:///receiver.db",
        "where everything is kept: `sqlite:///relative.db`, `sqlite:////absolute.db` or "
        "`postgres://user:password@host/database`",
        database_url,
        careful=True,
    ),
    Setting(
        "DATABASE_SCHEMA",
        "database_schema",
        "",
        "a schema of PostgreSQL's for all tables, made if it is not there, where other programs "
        "use the same database; unset: the user's search_path. With SQLite it does nothing",
        schema,
        careful=True,
    ),
    Setting(
        "ALLOW_EPHEMERAL_SQLITE",
        "allow_ephemeral_sqlite",
        "0",
        "`1`: start with SQLite also where the host empties the disk, and all may be lost",
        flag,
    ),
    Setting(
        "BIND",
        "bind",
        "",
        "the IP address to listen on; unset: all of this machine, also by IPv6 where it has it",
        bind,
    ),
    Setting("PORT", "port", "3000", "the port to serve on", port),
    Setting(
        "TRUSTED_PROXIES",
        "trusted_proxies",
        "0",
        "how many proxies in front are believed about scheme and client address",
        number(0, 16),
    ),
    Setting("WEB_CONCURRENCY", "web_concurrency", "1", "gunicorn's processes", number(1, 64)),
    Setting(
        "WEB_THREADS",
        "web_threads",
        "8",
        "threads in each of these processes, for what is no webhook",
        number(1, 512),
    ),
    Setting(
        "HANDLERS",
        "handlers",
        "handlers",
        "modules with your handlers, separated by commas; each has a `register(registry)`",
        module_names,
    ),
    Setting(
        "EMBEDDED_WORKER",
        "embedded_worker",
        "1",
        "`0`: gunicorn starts no process for the handlers, and you run `flask work` yourself",
        flag,
    ),
    Setting(
        "RETENTION_DAYS",
        "retention",
        "90",
        "how long messages, events and event ids are kept; older events are not let in",
        days,
        careful=True,
    ),
    Setting(
        "MAX_BODY_BYTES",
        "max_body_bytes",
        "262144",
        "the largest body that is accepted",
        number(1_024, 64 * 1024 * 1024),
    ),
    Setting(
        "STORE_TEXT",
        "text_mode",
        "full",
        "what is kept of an SMS's text: `full`, `masked` (its digits hidden) or `none`",
        one_of(*TEXT_MODES),
        careful=True,
    ),
    Setting(
        "ZIMSEND_API_KEY",
        "api_key",
        "",
        "your key at ZimSend; with `ZIMSEND_CLIENT_ID` it also opens this service's `/v1`",
        credential,
        needs="ZIMSEND_CLIENT_ID",
        secret=True,
    ),
    Setting(
        "ZIMSEND_CLIENT_ID",
        "client_id",
        "",
        "your client id at ZimSend; without key and id, `/v1` is closed",
        credential,
        needs="ZIMSEND_API_KEY",
        secret=True,
    ),
    Setting(
        "ZIMSEND_DEVICE_ID",
        "device_id",
        "",
        "the phone that sends where a request names none; without it, any that is online",
        header,
    ),
    Setting(
        "ZIMSEND_API_URL",
        "api_url",
        "https://api.zimsend.com/v1",
        "ZimSend's API, or a simulator's",
        address,
    ),
    Setting(
        "SMSCX_WEBHOOK_TOKEN",
        "smscx_tokens",
        "",
        "the secret part of the address that SMS.CX reports to; several, separated by commas",
        tokens,
        secret=True,
    ),
    Setting(
        "SMSCX_API_KEY",
        "smscx_api_key",
        "",
        "your key at SMS.CX, for sending and for what was missed",
        credential,
        needs="SMSCX_WEBHOOK_TOKEN",
        secret=True,
    ),
    Setting("SMSCX_FROM", "smscx_sender", "", "who SMS are from that SMS.CX sends", sender),
    Setting(
        "SMSCX_API_URL",
        "smscx_api_url",
        "https://api.sms.cx",
        "SMS.CX's API, or a simulator's",
        address,
    ),
    Setting(
        "SIPGATE_TOKEN_ID",
        "sipgate_token_id",
        "",
        "the id of your personal access token at sipgate, for sending and for its history",
        token_id,
        needs="SIPGATE_TOKEN",
        secret=True,
    ),
    Setting(
        "SIPGATE_TOKEN",
        "sipgate_token",
        "",
        "that token; it needs the scopes `sessions:sms:write` and `history:read`",
        credential,
        needs="SIPGATE_TOKEN_ID",
        secret=True,
    ),
    Setting(
        "SIPGATE_SMS_ID",
        "sipgate_sms_id",
        "s0",
        "the SMS extension at sipgate that sends, and whose history is asked",
        extension,
    ),
    Setting(
        "SIPGATE_API_URL",
        "sipgate_api_url",
        "https://api.sipgate.com/v2",
        "sipgate's API, or a simulator's",
        address,
    ),
    Setting(
        "SEND_WITH",
        "send_with",
        "",
        "whom to send through, like `zimsend,smscx`: the next one only where the one before surely "
        "sent nothing; unset: the first that can",
        names,
    ),
    Setting(
        "PUBLIC_URL",
        "public_url",
        "",
        "this service's own https address, as ZimSend reaches it",
        public_url,
    ),
    Setting(
        "ADMIN_PASSWORD",
        "admin_password",
        "",
        "what opens the dashboard at `/`; without it, there is none. A new one signs everybody out",
        password,
        needs="SECRET_KEY",
        secret=True,
    ),
    Setting(
        "SECRET_KEY",
        "secret_keys",
        "",
        "what signs the dashboard's sessions: 32 bytes or more; several, separated by commas, "
        "while one is rotated; the first signs",
        keys,
        only_with="ADMIN_PASSWORD",
        secret=True,
    ),
    Setting(
        "ALERT_URLS",
        "alert_urls",
        "",
        "where to say that something is wrong: addresses of apprise, separated by commas",
        alert_urls,
        secret=True,
    ),
    Setting(
        "HEARTBEAT_URL",
        "heartbeat_url",
        "",
        "an address that is asked each minute while events are stored and handled",
        heartbeat_url,
        secret=True,
    ),
    Setting(
        "TIMEZONE",
        "timezone",
        "UTC",
        "the zone in which commands and pages show times, and understand `today`, `yesterday` and "
        "dates",
        zone,
    ),
    Setting(
        "V1_API_KEY",
        "v1_api_key",
        "",
        "a key of your own that opens `/v1`, in the place of ZimSend's",
        credential,
        secret=True,
    ),
    Setting(
        "V1_CLIENT_ID",
        "v1_client_id",
        "",
        "the client id that `/v1` asks for; none beside a `V1_API_KEY`",
        credential,
        secret=True,
    ),
    Setting(
        "V1_READ_KEY",
        "v1_read_key",
        "",
        "a key that opens the calls of `/v1` that read, and no others",
        credential,
        secret=True,
    ),
    Setting(
        "DEFAULT_COUNTRY",
        "default_country",
        "",
        "two letters, like `FR`: whose phone numbers you write without their country",
        country,
    ),
    Setting(
        "METRICS_TOKEN",
        "metrics_token",
        "",
        "the bearer token that `/metrics` asks for; without it, only this machine itself is "
        "answered, and only while `PUBLIC_URL` is not set",
        bearer_token,
        secret=True,
    ),
    Setting(
        "LOG_FORMAT", "log_format", "text", "`json`: one object a line", one_of("text", "json")
    ),
    Setting(
        "LOG_LEVEL",
        "log_level",
        "info",
        "`debug`, `info`, `warning` or `error`",
        one_of("debug", "info", "warning", "error"),
    ),
)

#: All that docs/reference/settings.md has.
NAMES = (*(setting.name for setting in SETTINGS), *OF_HANDLERS)
