from __future__ import annotations

from django.conf.urls.i18n import i18n_patterns
from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def page(request: HttpRequest, name: str = "") -> HttpResponse:
    request.session["seen"] = request.session.get("seen", 0) + 1
    return HttpResponse(f"the shop's {name}, in {request.LANGUAGE_CODE}")


urlpatterns = [
    path("sms/", include("receiver.django.urls")),
    path("<slug:tenant>/of/sms/", include("receiver.django.urls", namespace="of")),
    path("smsx/", page),
    path("v1/sms/history", page),
    # A page for every path, in every language.
    *i18n_patterns(
        path("in/sms/", include("receiver.django.urls", namespace="in")),
        path("<path:name>", page),
    ),
]
