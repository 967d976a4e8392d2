"""Writes one line to the log for each event, without the SMS text and with the number masked."""

from __future__ import annotations

import json
import logging
import re

from receiver import Event, Registry

log = logging.getLogger("handlers.log")  # the name that filters of log lines know

_BARE = re.compile(r"[\w.:+*/-]{1,200}", re.ASCII)


def register(registry: Registry) -> None:
    registry.on("*", name="log")(log_event)


def log_event(event: Event) -> None:
    """`LOG_FORMAT=json` gives the same facts as fields."""
    facts = {
        "event": event.type,
        "event_id": event.id,
        "message_id": event.message_id,
        "to": mask(event.to),
        "device_id": event.device_id,
        "error_code": event.error_code,
        "late": event.late or None,
    }
    facts = {
        name: value[:200] if isinstance(value, str) else value
        for name, value in facts.items()
        if value is not None
    }
    line = " ".join(f"{name}={_quoted(value)}" for name, value in facts.items())
    log.info(line, extra=facts)


def mask(number: str | None) -> str | None:
    """A phone number with all but its first three and last two characters hidden."""
    if number is None:
        return None
    if not 8 <= len(number) <= 32:
        return "*****"
    return number[:3] + "*" * (len(number) - 5) + number[-2:]


def _quoted(value: object) -> str:
    """As it is if it is one plain word, else as JSON: a value can never break its line."""
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)
