"""What the shop does with reports. Django imports this module of every app by itself."""

from receiver.django import on
from shop.models import Order


@on("sms.sent", "sms.delivered", "sms.failed")
def note(event):
    """The same again changes nothing, and neither does a report that comes after a later one."""
    if "order" in event.metadata and not event.late:
        noted = {"sms": event.status, "why": event.error_code or ""}
        Order.objects.filter(pk=event.metadata["order"]).update(**noted)
