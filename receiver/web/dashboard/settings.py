"""The settings in effect, where providers are to report to, and what was refused lately."""

from __future__ import annotations

from flask import Response, request

from receiver import in_effect
from receiver.calling import call
from receiver.errors import StoreUnavailable
from receiver.parts import Receiver, parts
from receiver.providers import PROVIDERS
from receiver.refusals import last_noted
from receiver.web.dashboard.pages import blueprint, page


@blueprint.get("/settings")
def settings() -> Response:
    receiver = parts()
    config = receiver.config
    try:
        refused, store_is_away = last_noted(receiver.store, receiver.now()), False
    except StoreUnavailable:  # all else is known without it, and may say why
        refused, store_is_away = None, True
    set_up = [provider for provider in PROVIDERS.values() if provider.is_set_up(config)]
    return page(
        "settings.html",
        rows=list(in_effect.rows(config, receiver.environment)),
        file=receiver.environment.file,
        # An address that holds a secret is not shown: a command tells it.
        webhooks=[
            (
                provider.title,
                (config.public_url or _here(receiver)) + provider.door.path
                if provider.door.header is not None
                else None,
                call(f"webhooks url {provider.name}"),
            )
            for provider in set_up
            if provider.door is not None
        ],
        refused=refused,
        store_is_away=store_is_away,
        handlers=[(handler.name, ", ".join(handler.patterns)) for handler in receiver.registry],
    )


def _here(receiver: Receiver) -> str:
    """A host's address is known from the request alone."""
    if receiver.host is None:
        return receiver.config.local_url
    return request.url_root.rstrip("/")
