"""All that knows how SMS.CX itself speaks: its callbacks, its API, and a simulated SMS.CX."""

from __future__ import annotations

from collections.abc import Callable

from receiver.config import Config
from receiver.providers.contract import Account, Door, Provider, Sender, Sending
from receiver.providers.smscx import samples, webhook
from receiver.providers.smscx.webhook import PATH
from receiver.store import Store
from receiver.strict_json import canonical


def _sender(config: Config, store: Store, now: Callable[[], int]) -> Sender:
    # Whoever only reads what was reported does without HTTP.
    from receiver.providers.smscx import gateway

    return gateway.Sender(config, store, now)


def _account(config: Config, store: Store, now: Callable[[], int]) -> Account | None:
    from receiver.providers.smscx import account

    return account.of_settings(config, store, now)


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
    sending=Sending(
        is_set_up=lambda config: bool(config.smscx_api_key and config.smscx_sender),
        settings=("SMSCX_API_KEY", "SMSCX_FROM"),
        open=_sender,
    ),
    account=_account,
)
