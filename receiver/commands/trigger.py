"""`flask trigger`: signed events, as ZimSend would send them."""

from __future__ import annotations

import hashlib
import secrets

import click
import httpx

from receiver.commands.common import command, echo
from receiver.event import ALIASES
from receiver.outgoing import http_client, read_at_most, time_limit
from receiver.parts import parts
from receiver.providers.zimsend import webhook
from receiver.providers.zimsend.samples import SAMPLES, sample

#: Seconds that an answer may take in all, bytes of it that are read, and characters shown.
ANSWER_WITHIN = 10.0
LARGEST_ANSWER = 8_192
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
            body = sample(
                ALIASES.get(event_type, event_type), to=to, now=receiver.now(), test=True, **ids
            )
            headers = {
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": "ZimSend-Webhook/1.0",
                "X-Webhook-Signature": webhook.sign(receiver.config.webhook_secrets[0], body),
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
            about = ids["message_id"] if "message_id" in body.decode() else ids["event_id"]
            echo(f"{event_type} {about}: {answer.status_code} {told.strip()[:LONGEST_ANSWER]}")
    if refused:
        raise click.ClickException(f"{refused} of {count} events were not accepted")


def _twelve_digits(event_id: str | None) -> str:
    """The same for the same event: of another message it would be another event."""
    if event_id is None:
        return secrets.token_hex(6)
    return hashlib.sha256(event_id.encode()).hexdigest()[:12]
