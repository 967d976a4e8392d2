"""The composition root: puts the parts together. Nothing but the doors imports it."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from flask import Flask

from receiver import commands, refusals, times
from receiver.alerts.looking import Looking
from receiver.alerts.sending import refuse_without_apprise
from receiver.alerts.watching import Alerts
from receiver.config import Config
from receiver.counting import Counting
from receiver.environment import Environment
from receiver.errors import ConfigError, told_where
from receiver.event import Incoming
from receiver.heartbeat import Heartbeat
from receiver.ingest import Ingest
from receiver.parts import Host, Receiver, parts
from receiver.pipes import GAP, WORK, bell
from receiver.polling import Polling
from receiver.providers import PROVIDERS, SENDING, send_with
from receiver.providers.clock import clock_of
from receiver.providers.contract import Account
from receiver.providers.sipgate.api import Sipgate
from receiver.readiness import Readiness
from receiver.receiving import Receiving
from receiver.reconciliation.passes import Reconciliation
from receiver.registry import Registry
from receiver.store import Store, open_store
from receiver.upkeep import Upkeep
from receiver.web import dashboard, metrics, ops, paths, problems, webhook
from receiver.web.proxies import behind
from receiver.web.v1 import gateway, reconciliation
from receiver.web.v1 import messages as mirror
from receiver.worker import Worker

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def create_app(
    environ: Mapping[str, str] | None = None,
    now: Callable[[], int] = times.now,
    host: Host | None = None,
) -> Flask:
    """Put the service together. Connects to nothing and starts no thread.

    :param environ: the settings; those of the process by default.
    :param now: the clock.
    :param host: the program that it is built into, if it is.
    :raises ConfigError: if a setting is missing or wrong.
    """
    environ = Environment.of(os.environ if environ is None else environ)
    config = Config.from_env(environ)
    app = Flask("receiver", static_folder=None)
    if host is not None:
        app.debug = False  # FLASK_DEBUG is the host's
        # No process of gunicorn's runs the handlers, whatever else may.
        config = replace(config, here=host.here, embedded_worker=False)
    store = open_store(config.database_url)
    registry = Registry() if host is None else host.registry
    register_handlers(registry, config.handlers)
    inside = app.app_context if host is None else host.inside
    counting = Counting(store)
    worker = Worker(store, registry, now, inside=inside, counting=counting)
    upkeep = Upkeep(store, config.retention, now)
    ingest = Ingest(store, registry.wanting, bell(environ, WORK) or worker.wake)
    set_up = [provider for provider in PROVIDERS.values() if provider.is_set_up(config)]
    senders = {
        name: sending.open(config, store, now)
        for name, sending in SENDING.items()
        if sending.is_set_up(config)
    }
    clients = {name: sender.client for name, sender in senders.items()}
    waiting = threading.BoundedSemaphore(max(4, config.web_threads // 2))
    asked = (provider.account(config, store, now) for provider in PROVIDERS.values())
    reconciliations = {
        account.provider: make_reconciliation(config, account, store, ingest, now)
        for account in asked
        if account is not None
    }
    receiving = Receiving(config, set_up, now, counting)
    receiving.refusals.keep = lambda line: refusals.note(store, now(), line)
    polling = make_polling(config, clients.get("sipgate"), store, ingest, now)
    readiness = Readiness(config, store, registry, polling, lambda: ingest.problem, now)
    alerts = make_alerts(config, store, reconciliations, polling, now)
    heartbeat = config.heartbeat_url and Heartbeat(config.heartbeat_url, store, readiness, now)

    app.url_map.merge_slashes = False  # an id may hold any of them
    app.url_map.converters["anytext"] = mirror.AnyText
    app.url_map.converters["messageid"] = gateway.MessageId
    receiver = Receiver(
        config,
        store,
        registry,
        ingest,
        receiving,
        worker,
        upkeep,
        counting,
        senders,
        send_with(config),
        waiting,
        reconciliations,
        polling,
        readiness,
        alerts,
        heartbeat or None,
        now,
        environ,
        inside,
        host,
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
    app.register_blueprint(dashboard.routes(receiver))
    app.register_blueprint(metrics.blueprint)
    problems.register_errors(app)
    commands.register(app)
    return app


def close(app: Flask, *, flush: bool = False) -> None:
    """Close what an application has opened; what it has started must have been stopped.

    :param flush: whether what this process has counted is written down first.
    """
    receiver = parts(app)
    receiver.ingest.stop()
    receiver.receiving.refusals.stop()
    receiver.counting.stop()
    if flush:
        receiver.counting.flush()
    app.extensions["metrics"].stop()
    receiver.store.close()


def _at_the_path_meant(application: Application) -> Application:
    def call(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        environ["PATH_INFO"] = paths.meant(environ.get("PATH_INFO", ""))
        return application(environ, start)

    return call


def make_reconciliation(
    config: Config, account: Account, store: Store, ingest: Ingest, now: Callable[[], int]
) -> Reconciliation:
    """An account is asked for what its provider's reports did not bring."""
    return Reconciliation(
        account,
        store,
        learning(ingest, account.now, now),
        now,
        retention=config.retention,
        text_mode=config.text_mode,
    )


def make_polling(
    config: Config,
    sipgate: Sipgate | None,
    store: Store,
    ingest: Ingest,
    now: Callable[[], int],
) -> Polling | None:
    """sipgate reports nothing by itself, so its history is asked."""
    if sipgate is None:
        return None
    clock = clock_of(config.sipgate_api_url, now)
    return Polling(
        sipgate,
        store,
        learning(ingest, clock, now),
        clock,
        now,
        retention=config.retention,
        text_mode=config.text_mode,
    )


def make_alerts(
    config: Config,
    store: Store,
    reconciliations: Mapping[str, Reconciliation],
    polling: Polling | None,
    now: Callable[[], int],
) -> Alerts | None:
    """
    :raises ConfigError: if alerts are to be sent, and what sends them is not installed.
    """
    if not config.alert_urls:
        return None
    refuse_without_apprise()
    looking = Looking(store, reconciliations, polling)
    return Alerts(config.alert_urls, looking, store, now, where=config.public_url)


def learning(
    ingest: Ingest, clock: Callable[[], int], now: Callable[[], int]
) -> Callable[[Sequence[Incoming]], object]:
    """What stores that which was asked for.

    :param clock: the one that it was asked by.
    """

    def learn(items: Sequence[Incoming]) -> object:
        # What is learnt by another clock is received, and due to handlers, by ours.
        return ingest.submit_all([item._replace(received_at=now()) for item in items])

    return ingest.submit_all if clock is now else learn


def register_handlers(registry: Registry, modules: Sequence[str]) -> None:
    """Let each module add its handlers, once.

    :raises ConfigError: if one cannot be imported, or cannot register.
    """
    for name in modules:
        if name in registry.modules:
            continue
        try:
            module = _module(name)
        except (Exception, SystemExit) as error:
            told = "; write it without .py" if name.endswith(".py") else ""
            raise _handlers_error(f"cannot import {name}{told}", error) from error
        register = getattr(module, "register", None)
        if register is None:
            told = f"{name} has no function register(registry)"
            if name == "handlers":
                told += "; the built-in list is also called receiver.handlers"
            raise ConfigError("HANDLERS", told)
        try:
            register(registry)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            raise _handlers_error(f"{name} cannot register", error) from error
        registry.modules.add(name)


def _module(name: str) -> ModuleType:
    """A module of handlers. The built-in ones are also known as `handlers`, `handlers.log` and so
    on, where no module of the user's has that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        room = name.partition(".")[0]
        if room != "handlers" or error.name not in (room, name):
            raise
        if importlib.util.find_spec(f"receiver.{name}") is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name) from None
    return importlib.import_module(f"receiver.{name}")


def _handlers_error(what: str, error: BaseException) -> ConfigError:
    return ConfigError("HANDLERS", f"{what}: {told_where(error, __file__)}")
