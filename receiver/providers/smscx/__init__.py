"""All that knows how SMS.CX itself speaks: its callbacks, its API, and a simulated SMS.CX."""

from __future__ import annotations

from collections.abc import Callable

from receiver.config import Config
from receiver.providers.contract import Account, Door, Provider
from receiver.providers.smscx import samples, webhook
from receiver.store.contract import Store
from receiver.strict_json import canonical

PATH = "/webhooks/smscx"


def _account(config: Config, store: Store, now: Callable[[], int]) -> Account | None:
    # Loaded where it is used: events can be read without HTTP.
    from receiver.providers.smscx.account import of_settings

    return of_settings(config, store, now)


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
        address=lambda config: f"{PATH}/{config.smscx_tokens[0].decode()}",
    ),
    parse=webhook.parse,
    read=webhook.read,
    raw=lambda body: canonical(webhook.read(body)[0]),
    tries=None,
    samples=tuple(samples.SAMPLES),
    sample=samples.sample,
    account=_account,
)
