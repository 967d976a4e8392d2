"""`flask trigger`: signed events, as ZimSend would send them."""

from __future__ import annotations

import hashlib
import secrets

import click
import httpx

from receiver.commands.common import command, echo
from receiver.config import is_loopback
from receiver.event import ALIASES
from receiver.parts import parts
from receiver.providers.zimsend import webhook
from receiver.providers.zimsend.samples import SAMPLES, sample

#: Characters of an answer that are shown.
LONGEST_ANSWER = 2_000


@command()
@click.argument("event_type", metavar="TYPE", type=click.Choice([*SAMPLES, *ALIASES]))
@click.option("--url", help="the webhook's full URL [default: this receiver on PORT]")
@click.option("--message-id", help="[default: a new one for each event id]")
@click.option("--to", default="+33612345678", show_default=True, help="the recipient's number")
@click.option("--event-id", help="the same again is a duplicate [default: a new one each]")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True)
def trigger(
    event_type: str,
    url: str | None,
    message_id: str | None,
    to: str,
    event_id: str | None,
    count: int,
) -> None:
    """Send signed events of a TYPE to a running receiver, and print its answers."""
    receiver = parts()
    url = url or f"http://127.0.0.1:{receiver.config.port}/webhooks/zimsend"
    try:
        host = httpx.URL(url).host
    except (httpx.InvalidURL, UnicodeError) as error:
        raise click.BadParameter(f"{url!r}: {error}", param_hint=["--url"]) from error
    # The environment's proxies do not reach this machine; with a transport they are not asked.
    transport = httpx.HTTPTransport() if is_loopback(host) else None
    refused = 0
    with httpx.Client(timeout=10, transport=transport) as client:
        for _ in range(count):
            ids = {
                "event_id": event_id or f"evt_test_{secrets.token_hex(6)}",
                "message_id": message_id or f"msg_test_{_twelve_digits(event_id)}",
            }
            body = sample(ALIASES.get(event_type, event_type), to=to, now=receiver.now(), **ids)
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "ZimSend-Webhook/1.0",
                "X-Webhook-Signature": webhook.sign(receiver.config.webhook_secrets[0], body),
            }
            try:
                answer = client.post(url, content=body, headers=headers)
            except httpx.HTTPError as error:
                raise click.ClickException(
                    f"no answer from {url} ({type(error).__name__}): is the receiver running?"
                ) from error
            refused += answer.status_code != 200
            about = ids["message_id"] if "message_id" in body.decode() else ids["event_id"]
            told = answer.text.strip()[:LONGEST_ANSWER]
            echo(f"{event_type} {about}: {answer.status_code} {told}")
    if refused:
        raise click.ClickException(f"{refused} of {count} events were not accepted")


def _twelve_digits(event_id: str | None) -> str:
    """The same for the same event: of another message it would be another event."""
    if event_id is None:
        return secrets.token_hex(6)
    return hashlib.sha256(event_id.encode()).hexdigest()[:12]
