"""The composition root: the only place that knows both the receiver and the handlers."""

from __future__ import annotations

import importlib
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flask import Flask

from receiver import ConfigError, Registry, commands, times, web
from receiver.config import Config
from receiver.ingest import Ingest
from receiver.store import Store, open_store
from receiver.upkeep import Upkeep
from receiver.web import mirror, ops, webhook
from receiver.worker import Worker


@dataclass(frozen=True)
class Receiver:
    """The parts of one running service: `app.extensions["receiver"]`."""

    config: Config
    store: Store
    registry: Registry
    ingest: Ingest
    worker: Worker
    upkeep: Upkeep
    #: The wall clock, in microseconds.
    now: Callable[[], int]


def create_app(
    environ: Mapping[str, str] | None = None, now: Callable[[], int] = times.now
) -> Flask:
    """Put the service together. Connects to nothing and starts no thread.

    :param environ: the settings; those of the process by default.
    :param now: the clock.
    :raises ConfigError: if a setting is missing or wrong.
    """
    config = Config.from_env(os.environ if environ is None else environ)
    store = open_store(config.database_url)
    registry = Registry()
    register_handlers(registry, config.handlers)
    worker = Worker(store, registry, now)
    wake = worker.wake if config.embedded_worker else lambda: None
    upkeep = Upkeep(store, config.retention, now)
    ingest = Ingest(store, registry.wanting, wake)

    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # an id may hold any of them
    app.url_map.converters["anytext"] = mirror.AnyText
    app.extensions["receiver"] = Receiver(config, store, registry, ingest, worker, upkeep, now)
    app.register_blueprint(webhook.blueprint)
    app.register_blueprint(mirror.blueprint)
    app.register_blueprint(ops.blueprint)
    web.register_errors(app)
    commands.register(app)
    return app


def register_handlers(registry: Registry, modules: Sequence[str]) -> None:
    """Let each module add its handlers.

    :raises ConfigError: if one cannot be imported, or cannot register.
    """
    for name in modules:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise _handlers_error(f"cannot import {name}", error) from error
        register = getattr(module, "register", None)
        if register is None:
            raise ConfigError("HANDLERS", f"{name} has no function register(registry)")
        try:
            register(registry)
        except ConfigError:
            raise
        except Exception as error:
            raise _handlers_error(f"{name} cannot register", error) from error


def _handlers_error(what: str, error: Exception) -> ConfigError:
    """It is the user's module, so it may be anything: say what, and where."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return ConfigError(
        "HANDLERS", f"{what}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    )
