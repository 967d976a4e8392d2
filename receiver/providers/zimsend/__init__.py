"""All that knows how ZimSend itself speaks: its webhook, its API, and a simulated ZimSend."""

from __future__ import annotations

from receiver.event import read_envelope
from receiver.providers.contract import Door, Provider
from receiver.providers.zimsend import samples, webhook

#: ZimSend, as the service knows it.
PROVIDER = Provider(
    name="zimsend",
    title="ZimSend",
    door=Door(
        path="/webhooks/zimsend",
        header="X-Webhook-Signature",
        methods=("POST",),
        authenticate=lambda config, body, claimed: webhook.verify(
            config.webhook_secrets, body, claimed
        ),
        answer=webhook.answer,
    ),
    parse=webhook.parse_all,
    read=read_envelope,
    tries=3,
    samples=tuple(samples.SAMPLES),
    sample=samples.sample,
)
