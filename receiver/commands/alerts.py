"""`flask alerts`: whether messages reach those who are to be told."""

from __future__ import annotations

import click

from receiver.alerts import sending
from receiver.alerts.sending import Parcel
from receiver.calling import call
from receiver.commands.common import command, echo
from receiver.parts import parts


@click.group()
def alerts() -> None:
    """Messages to ALERT_URLS, when something is wrong."""


@command(alerts)
def test() -> None:
    """Send a test message to each target of ALERT_URLS, and say how that went."""
    targets = parts().config.alert_urls
    if not targets:
        raise click.ClickException(
            "ALERT_URLS is not set: give it addresses of apprise, separated by commas"
        )
    text = f"This is a test: `{call('alerts test')}` was run. Alerts of this service arrive here."
    parcels = [
        Parcel(number, "zimsend-receiver: a test", text, False) for number in range(len(targets))
    ]
    failed = 0
    for parcel, problem in zip(parcels, sending.send(targets, parcels), strict=True):
        failed += problem is not None
        echo(f"{sending.name_of(targets, parcel.target)}: {problem or 'sent'}")
    if failed:
        raise click.ClickException(
            f"{failed} of {len(targets)} targets did not take it: check their addresses "
            "(https://github.com/caronc/apprise/wiki), and that this machine reaches them"
        )
