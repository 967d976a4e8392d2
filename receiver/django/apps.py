"""The receiver as an app of a Django project: `"receiver.django"` in `INSTALLED_APPS`."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed
from django.utils.module_loading import autodiscover_modules

from receiver.django import embedding


class ZimSend(AppConfig):  # type: ignore[misc]
    """It has no models: the receiver's tables are its own, and `manage.py zimsend migrate` makes
    them."""

    name = "receiver.django"
    label = "zimsend"
    verbose_name = "ZimSend"

    def ready(self) -> None:
        """Import `zimsend_handlers.py` of every app. Opens nothing and starts no thread."""
        checks.register(embedding.check)
        setting_changed.connect(embedding.forget)
        autodiscover_modules("zimsend_handlers")
