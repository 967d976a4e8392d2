"""The application as a server gets it: with the settings of the process and of `.env`."""

from __future__ import annotations

import logging.config
import sys
from pathlib import Path

from flask import Flask

from receiver import environment
from receiver.calling import call
from receiver.config import NAMES, unknown_in
from receiver.errors import ConfigError
from receiver.logs import logging_config, tell_at_the_start
from receiver.parts import parts
from receiver.service import create_app


def application(beside: Path | None = None) -> Flask:
    """The application, with the log set up. A wrong setting ends the process with one line.

    :param beside: the folder of the clone's `wsgi.py`. Without it the installed package is meant,
        and the user's modules are looked for in the folder that relative paths count from.
    """
    try:
        environ = environment.load(beside, NAMES)
        if beside is None:
            environment.find_modules_in(environ.folder)
        app = create_app(environ)
    except ConfigError as error:
        sys.exit(f"zimsend-receiver cannot start. {error}")
    config = parts(app).config
    logging.config.dictConfig(
        logging_config(config.log_format, config.log_level, config.handlers, config.in_addresses)
    )
    tell_at_the_start(unknown_in(environ))
    _tell_of_bare_gunicorn(beside)
    return app


def _tell_of_bare_gunicorn(beside: Path | None) -> None:
    """gunicorn looks for its settings in the folder where it is started, and says nothing without
    them."""
    settings = sys.modules.get("__config__")
    if "gunicorn.arbiter" in sys.modules and not hasattr(settings, "post_worker_init"):
        right = f"-c {beside / 'gunicorn.conf.py'}" if beside is not None else call("serve")
        logging.getLogger("receiver").warning(
            "gunicorn runs without the settings of this service, so without its event loop and its"
            " handlers: start it with `%s`",
            right,
        )
