"""All that knows how SMS.CX itself speaks: its callbacks, its API, and a simulated SMS.CX."""

from __future__ import annotations

from receiver.providers.contract import Door, Provider
from receiver.providers.smscx import account, gateway, samples, webhook
from receiver.providers.smscx.webhook import PATH
from receiver.strict_json import canonical

#: SMS.CX, as the service knows it.
PROVIDER = Provider(
    name=webhook.NAME,
    title="SMS.CX",
    is_set_up=lambda config: bool(config.smscx_tokens),
    door=Door(
        path=PATH,
        header=None,
        methods=("POST", "PUT"),
        authenticate=lambda config, body, claimed: webhook.authenticate(
            config.smscx_tokens, claimed or ""
        ),
        answer=webhook.answer,
        headers=lambda config, body: {},
        address=webhook.address,
    ),
    parse=webhook.parse,
    read=webhook.read,
    raw=lambda body: canonical(webhook.read(body)[0]),
    tries=None,
    samples=tuple(samples.SAMPLES),
    sample=samples.sample,
    sending=gateway.SENDING,
    account=account.of_settings,
)
