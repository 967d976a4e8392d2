"""All that knows how ZimSend itself speaks: its webhook, its API, and a simulated ZimSend."""

from __future__ import annotations

from collections.abc import Callable

from receiver.config import Config
from receiver.event import read_envelope
from receiver.providers.contract import Account, Door, Provider, Sender, Sending
from receiver.providers.zimsend import diagnosis, samples, webhook
from receiver.store import Store


def _sender(config: Config, store: Store, now: Callable[[], int]) -> Sender:
    # Whoever only reads what was reported does without HTTP.
    from receiver.providers.zimsend import gateway

    return gateway.Sender(config, store, now)


def _account(config: Config, store: Store, now: Callable[[], int]) -> Account | None:
    from receiver.providers.zimsend import account

    return account.of_settings(config, store, now)


#: ZimSend, as the service knows it.
PROVIDER = Provider(
    name="zimsend",
    title="ZimSend",
    is_set_up=lambda config: bool(config.webhook_secrets),
    door=Door(
        path=webhook.PATH,
        header=webhook.SIGNATURE,
        methods=("POST",),
        authenticate=lambda config, body, claimed: webhook.verify(
            config.webhook_secrets, body, claimed
        ),
        answer=webhook.answer,
        headers=lambda config, body: {
            "User-Agent": "ZimSend-Webhook/1.0",
            webhook.SIGNATURE: webhook.sign(config.webhook_secret, body),
        },
        address=lambda config: webhook.PATH,
        likely_cause=lambda config, body, headers: (
            diagnosis.diagnose(body, headers, config.webhook_secrets).told
        ),
    ),
    parse=webhook.parse_all,
    read=read_envelope,
    raw=lambda body: body,
    tries=3,
    samples=tuple(samples.SAMPLES),
    sample=samples.sample,
    sending=Sending(
        is_set_up=lambda config: config.api_key is not None and config.client_id is not None,
        settings=("ZIMSEND_API_KEY", "ZIMSEND_CLIENT_ID"),
        open=_sender,
    ),
    account=_account,
)
