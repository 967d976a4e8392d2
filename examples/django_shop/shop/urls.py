from django.urls import include, path

from shop import views

urlpatterns = [
    path("sms/", include("receiver.django.urls")),
    path("orders", views.place_order),
    path("orders/<int:number>", views.show_order),
    path("codes", views.send_code),
    path("codes/<str:name>", views.check_code),
    path("history", views.history),
]
