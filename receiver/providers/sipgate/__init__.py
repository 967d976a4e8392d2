"""All that knows how sipgate speaks. It reports nothing by itself: its history is asked."""

from __future__ import annotations

from receiver.providers.contract import Provider
from receiver.providers.sipgate import events, gateway, samples

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
    sending=gateway.SENDING,
    reports_delivery=False,
)
