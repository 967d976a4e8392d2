from django.db import models


class Order(models.Model):
    item = models.CharField(max_length=100)
    phone = models.CharField(max_length=20)
    message_id, sms, why = (models.CharField(max_length=200) for _ in range(3))
