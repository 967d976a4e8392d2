from __future__ import annotations

from typing import Any

from django.db.models import F

from receiver.django import on
from tests.embedded.django_host.models import Order


@on("sms.delivered", "sms.failed")
def note_in_the_order(event: Any) -> None:
    order, _ = Order.objects.get_or_create(message_id=event.message_id)
    Order.objects.filter(pk=order.pk).update(status=event.status, told=F("told") + 1)
