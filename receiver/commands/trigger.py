"""`flask trigger`: signed events, as ZimSend would send them."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

import click
import httpx

from receiver.commands.common import command, echo
from receiver.config import Config
from receiver.errors import Unusable
from receiver.event import ALIASES
from receiver.outgoing import http_client, read_at_most, time_limit
from receiver.parts import parts
from receiver.payloads import Said
from receiver.providers import PROVIDERS, Door, Provider
from receiver.strict_json import holds_digits, read_text

#: Seconds that an answer may take in all, bytes of it that are read, and characters shown.
ANSWER_WITHIN = 10.0
LARGEST_ANSWER = 8_192
LONGEST_ANSWER = 2_000


#: Those that send reports; and other names that some of them have for what they send.
_PROVIDERS = [(name, provider) for name, provider in PROVIDERS.items() if provider.door is not None]
_ALIASES = {"zimsend": tuple(ALIASES)}
_TYPES = {name: (*provider.samples, *_ALIASES.get(name, ())) for name, provider in _PROVIDERS}


def _all_types() -> list[str]:
    return list(dict.fromkeys(kind for kinds in _TYPES.values() for kind in kinds))


@command()
@click.argument("event_type", metavar="TYPE", type=click.Choice(_all_types()))
@click.option(
    "--provider",
    "provider_name",
    type=click.Choice([*_TYPES]),
    help="who sends it [default: the first that is set up]",
)
@click.option("--url", help="the webhook's full URL [default: this receiver on PORT]")
@click.option("--message-id", help="[default: a new one for each event id]")
@click.option("--to", default="+33612345678", show_default=True, help="the recipient's number")
@click.option("--error", help="why it failed: CODE, or CODE:message in words")
@click.option("--text", help="the text of the SMS")
@click.option(
    "--metadata",
    metavar="K=V",
    multiple=True,
    help="what was given when it was sent; several, or one JSON object",
)
@click.option("--device", help="the phone's id")
@click.option("--event-id", help="the same again is a duplicate [default: a new one each]")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True)
def trigger(
    event_type: str,
    provider_name: str | None,
    url: str | None,
    message_id: str | None,
    to: str,
    error: str | None,
    text: str | None,
    metadata: tuple[str, ...],
    device: str | None,
    event_id: str | None,
    count: int,
) -> None:
    """Send events of a TYPE to a running receiver as a provider would, and print its answers."""
    receiver = parts()
    provider, door = _sender(receiver.config, provider_name)
    if event_type not in _TYPES[provider.name]:
        raise click.UsageError(f"{provider.title} reports no {event_type}")
    url = url or f"{receiver.config.local_url}{door.address(receiver.config)}"
    try:
        httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as wrong:
        raise click.BadParameter(f"{url!r}: {wrong}", param_hint=["--url"]) from wrong
    said = _said(error, text, metadata, device)
    refused = 0
    with http_client() as client:
        for _ in range(count):
            ids = {
                "event_id": event_id or f"evt_test_{secrets.token_hex(6)}",
                "message_id": message_id or f"msg_test_{_twelve_digits(event_id)}",
            }
            kind = ALIASES.get(event_type, event_type)
            try:
                body = provider.sample(kind, to=to, now=receiver.now(), test=True, **ids, **said)
            except ValueError as unsaid:
                raise click.UsageError(str(unsaid)) from None
            answer, told = _send(client, url, body, door.headers(receiver.config, body))
            refused += answer != 200
            about = ids["message_id"] if ids["message_id"] in body.decode() else ids["event_id"]
            echo(f"{event_type} {about}: {answer} {told.strip()[:LONGEST_ANSWER]}")
    if refused:
        raise click.ClickException(f"{refused} of {count} events were not accepted")


def _send(
    client: httpx.Client, url: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, str]:
    """The status of the answer, and the beginning of its text."""
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **headers}
    try:
        with (
            time_limit(ANSWER_WITHIN),
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            told = read_at_most(answer, LARGEST_ANSWER).decode("utf-8", "replace")
            return answer.status_code, told
    except httpx.HTTPError as problem:
        raise click.ClickException(
            f"no answer from {url} ({type(problem).__name__}): is the receiver running?"
        ) from problem


def _said(
    error: str | None, text: str | None, metadata: tuple[str, ...], device: str | None
) -> Said:
    """What the options make an event say.

    :raises click.BadParameter: for what cannot be read.
    """
    said: Said = {}
    if error is not None:
        code, colon, words = error.partition(":")
        if not code.strip() or (colon and not words.strip()):
            raise click.BadParameter("write CODE or CODE:message", param_hint=["--error"])
        said["error_code"] = code.strip()
        if colon:
            said["error_message"] = words.strip()
    if text is not None:
        said["text"] = text
    if metadata:
        said["metadata"] = _metadata(metadata)
    if device is not None:
        said["device_id"] = device
    return said


def _metadata(given: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in given:
        key, equals, value = part.partition("=")
        if part.lstrip().startswith("{"):
            found |= _object(part)
        elif key and equals:
            found[key] = value
        else:
            raise click.BadParameter(
                f"{part!r} is neither K=V nor a JSON object", param_hint=["--metadata"]
            )
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        found = dict(read_text(text))  # what begins with a brace is an object, or no JSON
    except Unusable:
        raise click.BadParameter(f"{text!r} is no JSON object", param_hint=["--metadata"]) from None
    if holds_digits(found):  # it would be sent as a text, and not as what was typed
        raise click.BadParameter(
            "it has a number that is too large: write it as a text, in quotes",
            param_hint=["--metadata"],
        )
    return found


def _sender(config: Config, name: str | None) -> tuple[Provider, Door]:
    """Who sends it: only one that is set up here can be imitated."""
    for _, provider in _PROVIDERS:
        if name in (None, provider.name) and provider.is_set_up(config) and provider.door:
            return provider, provider.door
    told = "no provider that reports is" if name is None else f"{PROVIDERS[name].title} is not"
    raise click.ClickException(f"{told} set up: see docs/reference/settings.md")


def _twelve_digits(event_id: str | None) -> str:
    """The same for the same event: of another message it would be another event."""
    if event_id is None:
        return secrets.token_hex(6)
    return hashlib.sha256(event_id.encode()).hexdigest()[:12]
