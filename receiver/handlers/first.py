"""Your handlers: what is to happen with each event. Change this file as you like.

`HANDLERS` in `.env` names it. After a change, start the service again.
"""

import logging

from receiver import Event, Registry

log = logging.getLogger(__name__)


def register(registry: Registry) -> None:
    """Called once at the start: say which function wants which events."""
    registry.on("sms.delivered", "sms.failed")(note_end)


def note_end(event: Event) -> None:
    """Called for each event, in a process of its own. If it raises, it is called again later.

    It may see an event twice, after a crash for instance: `event.id` tells.
    """
    log.info("SMS %s is %s", event.message_id, event.status)
