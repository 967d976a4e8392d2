"""The application, for gunicorn and for the `flask` command."""

import logging.config
import sys

from dotenv import load_dotenv

from app import create_app
from receiver import ConfigError
from receiver.logs import logging_config

__all__ = ["app"]

load_dotenv()
try:
    app = create_app()
except ConfigError as error:
    sys.exit(f"zimsend-receiver cannot start. {error}")
_config = app.extensions["receiver"].config
logging.config.dictConfig(logging_config(_config.log_format, _config.log_level))
