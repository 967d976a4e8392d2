"""What is printed before it serves on a terminal: where to send, and how to see a first event."""

from __future__ import annotations

import sys
from pathlib import Path

from gunicorn.util import parse_address

from receiver import environment, times
from receiver.calling import be_called, call
from receiver.config import NAMES, Config
from receiver.errors import ConfigError
from receiver.web.dashboard.tokens import Tokens
from receiver.web.front.doors import addresses, obstacle

_TEXT = """
zimsend-receiver

  webhook URL   {here}/webhooks/zimsend
  first event   in another terminal, in this folder:
                  {call} trigger sms.delivered
                  {call} events list
  from outside  ngrok http {port}, and give ZimSend the https address that it shows,
                followed by /webhooks/zimsend; put ZimSend's secret into .env
  readiness     {here}/readyz
"""


#: Where of all only SMS.CX reports: its address is a secret, and not for a screen.
_WITH_SMSCX = """
zimsend-receiver

  webhook URL   {call} webhooks url smscx prints it; it holds a secret
  first event   in another terminal, in this folder:
                  {call} trigger sms.delivered
                  {call} events list
  readiness     {here}/readyz
"""

#: Where nobody reports.
_WITH_SIPGATE = """
zimsend-receiver

  webhook URL   none: sipgate does not report, so its history is asked every 5 minutes
  readiness     {here}/readyz
"""


_LINK = """                signs in once, within 10 minutes; later: ADMIN_PASSWORD, in .env
"""

_OFF = """  dashboard     is off: put ADMIN_PASSWORD and SECRET_KEY (32 bytes) into .env
"""


def tell(beside: Path | None = None) -> None:
    """Print it. Ends the process with one line if the service cannot start.

    :param beside: the folder of the clone's `wsgi.py`.
    """
    try:
        config = Config.from_env(environment.load(beside, NAMES))
    except ConfigError as error:
        sys.exit(f"zimsend-receiver cannot start. {error}")
    told = obstacle(parse_address(place) for place in addresses(config.bind, config.port))
    if told is not None:
        sys.exit(f"zimsend-receiver cannot start. {told}")
    here = config.local_url if config.bind else f"http://localhost:{config.port}"
    told = _text(config).format(here=here, port=config.port, call=call("").strip())
    print(f"{told}{dashboard(config, here, sys.stdout.isatty())}", flush=True)


def _text(config: Config) -> str:
    if config.webhook_secrets:
        return _TEXT
    return _WITH_SMSCX if config.smscx_tokens else _WITH_SIPGATE


def dashboard(config: Config, here: str, terminal: bool) -> str:
    """Where the dashboard is, and how one gets in.

    :param terminal: whether somebody reads this now: a link that signs in belongs into no log.
    """
    if config.admin_password is None:
        return _OFF
    if not terminal:
        return f"  dashboard     {here}\n"
    link = Tokens(config, times.now).link()
    return f"  dashboard     {here}/sign-in?link={link}\n{_LINK}"


if __name__ == "__main__":
    be_called(".venv/bin/flask")
    tell(Path(__file__).parent.parent)
