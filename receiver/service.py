"""The composition root: puts the parts together. Nothing but the doors imports it."""

from __future__ import annotations

import importlib
import os
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flask import Flask

from receiver import commands, times
from receiver.config import Config
from receiver.environment import Environment
from receiver.errors import ConfigError
from receiver.event import Incoming
from receiver.ingest import Ingest
from receiver.parts import Receiver
from receiver.pipes import GAP, WORK, bell
from receiver.providers import PROVIDERS
from receiver.providers.budget import Budget
from receiver.providers.contract import Account
from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.budget import Counted
from receiver.receiving import Receiving
from receiver.reconciliation.passes import Reconciliation
from receiver.registry import Registry
from receiver.store import Store, open_store
from receiver.upkeep import Upkeep
from receiver.web import ops, paths, problems, webhook
from receiver.web.proxies import behind
from receiver.web.v1 import gateway, reconciliation
from receiver.web.v1 import messages as mirror
from receiver.worker import Worker

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def create_app(
    environ: Mapping[str, str] | None = None, now: Callable[[], int] = times.now
) -> Flask:
    """Put the service together. Connects to nothing and starts no thread.

    :param environ: the settings; those of the process by default.
    :param now: the clock.
    :raises ConfigError: if a setting is missing or wrong.
    """
    environ = Environment.of(os.environ if environ is None else environ)
    config = Config.from_env(environ)
    app = Flask("receiver", static_folder=None)
    store = open_store(config.database_url)
    registry = Registry()
    register_handlers(registry, config.handlers)
    worker = Worker(store, registry, now, inside=app.app_context)
    upkeep = Upkeep(store, config.retention, now)
    ingest = Ingest(store, registry.wanting, bell(environ, WORK) or worker.wake)
    set_up = [provider for provider in PROVIDERS.values() if provider.is_set_up(config)]
    zimsend = make_client(config, Counted(store, now))
    waiting = threading.BoundedSemaphore(max(4, config.web_threads // 2))
    asked = (provider.account(config, store, now) for provider in PROVIDERS.values())
    reconciliations = {
        account.provider: make_reconciliation(config, account, store, ingest, now)
        for account in asked
        if account is not None
    }

    app.url_map.merge_slashes = False  # an id may hold any of them
    app.url_map.converters["anytext"] = mirror.AnyText
    app.url_map.converters["messageid"] = gateway.MessageId
    receiver = Receiver(
        config,
        store,
        registry,
        ingest,
        Receiving(config, set_up, now),
        worker,
        upkeep,
        zimsend,
        waiting,
        reconciliations,
        now,
        environ,
    )
    if reconciliations:
        ingest.on_recovery = bell(environ, GAP) or receiver.notice_gap
    app.extensions["receiver"] = receiver
    app.wsgi_app = _at_the_path_meant(app.wsgi_app)  # type: ignore[assignment,method-assign]
    if config.trusted_proxies:
        app.wsgi_app = behind(config.trusted_proxies, app.wsgi_app)  # type: ignore[method-assign]
    app.register_blueprint(webhook.routes(set_up))
    app.register_blueprint(mirror.blueprint)
    app.register_blueprint(gateway.blueprint)
    app.register_blueprint(reconciliation.blueprint)
    app.register_blueprint(ops.blueprint)
    problems.register_errors(app)
    commands.register(app)
    return app


def _at_the_path_meant(application: Application) -> Application:
    def call(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        environ["PATH_INFO"] = paths.meant(environ.get("PATH_INFO", ""))
        return application(environ, start)

    return call


def make_client(config: Config, budget: Budget) -> ZimSend | None:
    """ZimSend's API, with the settings' account. Tries once: whoever waits is told at once."""
    if config.api_key is None or config.client_id is None:
        return None
    return ZimSend(
        config.api_key.decode(),
        config.client_id.decode(),
        device_id=config.device_id,
        base_url=config.api_url,
        tries=1,
        budget=budget,
    )


def make_reconciliation(
    config: Config, account: Account, store: Store, ingest: Ingest, now: Callable[[], int]
) -> Reconciliation:
    """An account is asked for what its provider's reports did not bring."""

    def learn(items: Sequence[Incoming]) -> object:
        # What is learnt by another clock is received, and due to handlers, by ours.
        return ingest.submit_all([item._replace(received_at=now()) for item in items])

    return Reconciliation(
        account,
        store,
        ingest.submit_all if account.now is now else learn,
        now,
        retention=config.retention,
        text_mode=config.text_mode,
    )


def register_handlers(registry: Registry, modules: Sequence[str]) -> None:
    """Let each module add its handlers.

    :raises ConfigError: if one cannot be imported, or cannot register.
    """
    for name in modules:
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise _handlers_error(f"cannot import {name}", error) from error
        register = getattr(module, "register", None)
        if register is None:
            raise ConfigError("HANDLERS", f"{name} has no function register(registry)")
        try:
            register(registry)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            raise _handlers_error(f"{name} cannot register", error) from error


def _handlers_error(what: str, error: BaseException) -> ConfigError:
    """It is the user's module, so it may be anything: say what, and where."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    told = " ".join(f"{type(error).__name__}: {error}".split())
    return ConfigError("HANDLERS", f"{what}: {told} ({where.filename}:{where.lineno})")
