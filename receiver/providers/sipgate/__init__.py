"""All that knows how sipgate speaks. It reports nothing by itself: its history is asked."""

from __future__ import annotations

from collections.abc import Callable

from receiver.config import Config
from receiver.providers.contract import Provider, Sender, Sending
from receiver.providers.sipgate import events, samples
from receiver.store import Store


def _sender(config: Config, store: Store, now: Callable[[], int]) -> Sender:
    # Whoever only reads what was reported does without HTTP.
    from receiver.providers.sipgate import gateway

    return gateway.Sender(config, store, now)


#: sipgate, as the service knows it.
PROVIDER = Provider(
    name=events.NAME,
    title="sipgate",
    is_set_up=lambda config: config.sipgate_token_id is not None,
    door=None,
    parse=events.parse,
    read=events.read,
    raw=events.raw,
    tries=0,
    samples=samples.SAMPLES,
    sample=samples.sample,
    sending=Sending(
        is_set_up=lambda config: config.sipgate_token_id is not None,
        settings=("SIPGATE_TOKEN_ID", "SIPGATE_TOKEN"),
        open=_sender,
    ),
    reports_delivery=False,
)
