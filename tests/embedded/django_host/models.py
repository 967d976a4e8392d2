from __future__ import annotations

from django.db import models


class Order(models.Model):
    message_id = models.CharField(max_length=200, unique=True)
    status = models.CharField(max_length=20)
    #: How often a report was written here: at least once for each.
    told = models.IntegerField(default=0)

    class Meta:
        app_label = "django_host"
