"""`flask webhooks`: set this service up at ZimSend, and see that its reports arrive."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from receiver import ids
from receiver.calling import call
from receiver.commands.common import command, echo, echo_columns, echo_json, format_option
from receiver.errors import ConfigError
from receiver.parts import parts
from receiver.providers import PROVIDERS, exchange
from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.api.errors import NotFound
from receiver.store import Selection
from receiver.times import MINUTE

#: Those with a documented payload. Of the others ZimSend may not have heard itself.
EVENTS = ("sms.sent", "sms.delivered", "sms.failed", "device.connected", "device.disconnected")
#: Seconds that a test event may take from ZimSend into the store.
ARRIVES_WITHIN = 15.0

#: What is wrong, by what ZimSend got from the webhook.
_REFUSALS = {
    401: "its secret is not in ZIMSEND_WEBHOOK_SECRET, or the service was not restarted since",
    404: "PUBLIC_URL does not lead to this service",
    503: "this service cannot write its database; see /readyz",
}


class _WebhookId(click.ParamType[str]):
    """One that a path can hold."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            exchange.segment(value)
        except ValueError as error:
            self.fail(f"{error}; see `{call('webhooks list')}`")
        return str(value)


@click.group()
def webhooks() -> None:
    """The webhooks of your account at ZimSend."""


@command(webhooks)
@click.option("--new-secret", is_flag=True, help="let ZimSend choose the secret, and show it once")
def register(new_secret: bool) -> None:
    """Let ZimSend report to PUBLIC_URL, signed with the first of ZIMSEND_WEBHOOK_SECRET."""
    zimsend, url = _zimsend(), _url()
    there = [webhook.webhook_id for webhook in zimsend.webhooks() if webhook.url == url]
    if there:
        # A second one would report everything twice.
        told = f"{there[0]} reports to {url} already"
        if new_secret:
            raise click.ClickException(f"{told}; first `{call(f'webhooks delete {there[0]}')}`")
        echo(told)
        return
    secret = None if new_secret else _secret()
    made = zimsend.configure_webhook(url, EVENTS, secret=secret)
    echo(f"{made.webhook_id} reports to {url}")
    if new_secret and made.secret is None:
        raise click.ClickException(
            f"ZimSend shows no secret; `{call(f'webhooks delete {made.webhook_id}')}`, and "
            "register without --new-secret"
        )
    if made.secret not in (None, secret):
        echo("Its secret, which is shown only now:")
        echo(f"  {made.secret}")
        echo("Put it in front of what ZIMSEND_WEBHOOK_SECRET holds, with a comma between")
        echo("them (a comma inside it is written %2C), and restart the service.")
    echo(f"Then see an event arrive: {call(f'webhooks test {made.webhook_id}')}")


@command(webhooks, name="list")
@format_option
def list_webhooks(style: str) -> None:
    """All of the account."""
    listed = _zimsend().webhooks()
    if style == "table":
        _echo_row("WEBHOOK", "STATUS", "URL", "EVENTS")
    for webhook in listed:
        if style == "jsonl":
            echo_json(
                {
                    "webhook_id": webhook.webhook_id,
                    "status": webhook.status,
                    "url": webhook.url,
                    "events": list(webhook.events),
                }
            )
        else:
            _echo_row(webhook.webhook_id, webhook.status, webhook.url, " ".join(webhook.events))


@command(webhooks)
@click.argument("webhook_id", metavar="ID", type=_WebhookId())
def delete(webhook_id: str) -> None:
    """Let ZimSend report there no more."""
    with _about(webhook_id):
        _zimsend().delete_webhook(webhook_id)
    echo(f"{webhook_id} is deleted")


@command(webhooks)
@click.argument("webhook_id", metavar="[ID]", required=False, type=_WebhookId())
def test(webhook_id: str | None) -> None:
    """Have ZimSend send a test event, and wait until it is here.

    By default to the webhook that reports to PUBLIC_URL."""
    zimsend = _zimsend()
    if webhook_id is None:
        url = _url()
        there = [webhook.webhook_id for webhook in zimsend.webhooks() if webhook.url == url]
        if not there:
            first = call("webhooks register")
            raise click.ClickException(f"none reports to {url}; first `{first}`")
        webhook_id = there[0]
    since = parts().now() - MINUTE
    before = {event["event_id"] for event in _arrived(since)}
    with _about(webhook_id):
        status = zimsend.test_webhook(webhook_id).response_status
    if status is not None and status != 200:
        why = _REFUSALS.get(status, "look into this service's log, and what stands before it")
        raise click.ClickException(f"ZimSend got {status} from the webhook: {why}")
    deadline = time.monotonic() + ARRIVES_WITHIN
    while time.monotonic() < deadline:
        for event in _arrived(since):
            if event["event_id"] not in before:
                echo(f"arrived: {event['type']} {ids.written(event['event_id'])}")
                return
        time.sleep(0.2)
    if status == 200:
        raise click.ClickException(
            "ZimSend got 200, but nothing new is here: another service answers at this URL, or "
            "this command has another DATABASE_URL than the service"
        )
    raise click.ClickException(
        f"nothing came within {ARRIVES_WITHIN:.0f} s: check that the service runs and that "
        "PUBLIC_URL leads to it from outside"
    )


@command(webhooks)
@click.argument("provider", type=click.Choice([n for n, p in PROVIDERS.items() if p.door]))
def url(provider: str) -> None:
    """The address to give to a provider for its reports. It may hold a secret."""
    config, door = parts().config, PROVIDERS[provider].door
    if not PROVIDERS[provider].is_set_up(config) or door is None:
        raise click.ClickException(
            f"{PROVIDERS[provider].title} is not set up: see docs/reference/settings.md"
        )
    if config.public_url is None:
        raise ConfigError("PUBLIC_URL", "not set; give it the address at which others reach you")
    echo(f"{config.public_url}{door.address(config)}")


@contextmanager
def _about(webhook_id: str) -> Iterator[None]:
    """What the client advises where an id is unknown is about messages."""
    try:
        yield
    except NotFound as error:
        why = error.code or f"HTTP {error.status}"
        raise click.ClickException(
            f"ZimSend has no webhook {webhook_id!r} ({why}); see `{call('webhooks list')}`"
        ) from error


def _arrived(since: int) -> list[dict[str, Any]]:
    """The test events, by the ids that ZimSend's documents show."""
    return [
        event
        for event in parts().store.events(Selection(since=since))
        if event["source"] == "webhook"
        and (event["event_id"].startswith("evt_test") or "_test" in (event["message_id"] or ""))
    ]


def _zimsend() -> ZimSend:
    """Nobody waits for a thread here, so that it may try more than once."""
    zimsend = parts().zimsend
    if zimsend is None:
        raise ConfigError(
            "ZIMSEND_API_KEY", "not set, nor ZIMSEND_CLIENT_ID: ZimSend asks for both"
        )
    return zimsend.within(tries=3)


def _url() -> str:
    url = parts().config.webhook_url
    if url is None:
        raise ConfigError("PUBLIC_URL", "not set; give it the address at which ZimSend reaches you")
    return url


def _secret() -> str:
    try:
        return parts().config.webhook_secret.decode()
    except UnicodeDecodeError:
        raise ConfigError(
            "ZIMSEND_WEBHOOK_SECRET", "the first secret is not UTF-8; register with --new-secret"
        ) from None


def _echo_row(*values: object) -> None:
    echo_columns(*zip(values, (16, 8, 48, 0), strict=True))
