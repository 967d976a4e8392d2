"""`flask trigger`: signed events, as ZimSend would send them."""

from __future__ import annotations

import hashlib
import secrets

import click
import httpx

from receiver.commands.common import command, echo
from receiver.config import Config
from receiver.event import ALIASES
from receiver.outgoing import http_client, read_at_most, time_limit
from receiver.parts import parts
from receiver.providers import PROVIDERS, Door, Provider

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
@click.option("--event-id", help="the same again is a duplicate [default: a new one each]")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True)
def trigger(
    event_type: str,
    provider_name: str | None,
    url: str | None,
    message_id: str | None,
    to: str,
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
    except (httpx.InvalidURL, UnicodeError) as error:
        raise click.BadParameter(f"{url!r}: {error}", param_hint=["--url"]) from error
    refused = 0
    with http_client() as client:
        for _ in range(count):
            ids = {
                "event_id": event_id or f"evt_test_{secrets.token_hex(6)}",
                "message_id": message_id or f"msg_test_{_twelve_digits(event_id)}",
            }
            body = provider.sample(
                ALIASES.get(event_type, event_type), to=to, now=receiver.now(), test=True, **ids
            )
            headers = {
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",
                **door.headers(receiver.config, body),
            }
            try:
                with (
                    time_limit(ANSWER_WITHIN),
                    client.stream("POST", url, content=body, headers=headers) as answer,
                ):
                    told = read_at_most(answer, LARGEST_ANSWER).decode("utf-8", "replace")
            except httpx.HTTPError as error:
                raise click.ClickException(
                    f"no answer from {url} ({type(error).__name__}): is the receiver running?"
                ) from error
            refused += answer.status_code != 200
            about = ids["message_id"] if ids["message_id"] in body.decode() else ids["event_id"]
            echo(f"{event_type} {about}: {answer.status_code} {told.strip()[:LONGEST_ANSWER]}")
    if refused:
        raise click.ClickException(f"{refused} of {count} events were not accepted")


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
