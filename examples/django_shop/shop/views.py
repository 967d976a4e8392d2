"""A shop that confirms orders by SMS, checks numbers by a code, and knows what became of each."""

import httpx
from django.conf import settings
from django.forms import model_to_dict
from django.http import JsonResponse
from django.shortcuts import get_object_or_404

from receiver.django.embedding import receiver
from shop.models import Order


def place_order(request):
    """The number goes along as metadata: the first report may be here before `send` answers."""
    order = Order.objects.create(item=request.POST["item"], phone=request.POST["phone"])
    text = f"Commande {order.pk} : {order.item}"
    sent = zimsend("send", to=order.phone, message=text, metadata={"order": order.pk})
    Order.objects.filter(pk=order.pk).update(message_id=sent["message_id"])
    return JsonResponse({"order": order.pk})


def show_order(request, number):
    order = model_to_dict(get_object_or_404(Order, pk=number))
    return JsonResponse(order | {"known": zimsend(f"status/{order['message_id']}")})


def send_code(request):
    return JsonResponse({"name": zimsend("send-otp", to=request.POST["phone"])["otp_id"]})


def check_code(request, name):
    checked = zimsend("verify-otp", otp_id=name, code=request.POST["code"])
    return JsonResponse({"right": checked["valid"]})


def history(request):
    return JsonResponse(zimsend(f"history?{request.GET.urlencode()}"))


def zimsend(call, **fields):
    """A call of ZimSend's API, to the receiver in this process: it passes on what is to be sent."""
    ours = settings.ZIMSEND
    keys = {"X-API-Key": ours["ZIMSEND_API_KEY"], "X-Client-ID": ours["ZIMSEND_CLIENT_ID"]}
    here = {"transport": httpx.WSGITransport(app=receiver()), "base_url": "http://here/v1/sms/"}
    with httpx.Client(**here, headers=keys) as client:
        answer = client.post(call, json=fields) if fields else client.get(call)
    return answer.raise_for_status().json()
