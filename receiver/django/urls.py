"""All that the receiver serves, below a path of the project's own:

path("sms/", include("receiver.django.urls")),
"""

from __future__ import annotations

from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponseBase
from django.urls import re_path
from django.views.decorators.csrf import csrf_exempt

from receiver.django import bridge
from receiver.django.embedding import Visit, at_hand, receiver


def receive(request: HttpRequest, *_: object, rest: str, **__: object) -> HttpResponseBase:
    """Let the receiver answer. It lets in whom it knows: by a signature, a key, a session."""
    visit = Visit(request)
    token = at_hand.set(visit)
    try:
        answer = bridge.call(receiver(), request, rest)
    finally:
        at_hand.reset(token)
    # A 404 of ours is none of the project's, which would look for the path in another language.
    request.urlconf = __name__
    return answer if visit.answer is None else visit.answer


view: Any = csrf_exempt(receive)
view.login_required = False  # as login_not_required does, which Django has since 5.1
for alias in connections:  # ATOMIC_REQUESTS: an event is stored also while their database is away
    view = transaction.non_atomic_requests(using=alias)(view)

app_name = "zimsend"
urlpatterns = [re_path(r"^(?P<rest>[\s\S]*)\Z", view, name="receive")]
