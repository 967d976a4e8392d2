"""The application, for gunicorn and for the `flask` command."""

import logging.config
import sys
from pathlib import Path

from app import create_app
from receiver import ConfigError, environment
from receiver.config import NAMES, unknown_in
from receiver.logs import logging_config, tell_at_the_start

__all__ = ["app"]

try:
    _environ = environment.load(Path(__file__).parent, NAMES)
    app = create_app(_environ)
except ConfigError as error:
    sys.exit(f"zimsend-receiver cannot start. {error}")
_config = app.extensions["receiver"].config
logging.config.dictConfig(
    logging_config(_config.log_format, _config.log_level, _config.handlers, _config.in_addresses)
)
tell_at_the_start(unknown_in(_environ))
# gunicorn looks for its settings in the folder where it is started, and says nothing without them.
_settings = sys.modules.get("__config__")
if "gunicorn.arbiter" in sys.modules and not hasattr(_settings, "post_worker_init"):
    logging.getLogger("receiver").warning(
        "gunicorn runs without the settings of this service, so without its event loop and its"
        " handlers: start it with `-c %s`",
        Path(__file__).with_name("gunicorn.conf.py"),
    )
