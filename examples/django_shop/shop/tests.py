"""With a simulated ZimSend at ZIMSEND_API_URL: `python manage.py test`."""

import re
import subprocess
import sys
import tempfile
import time

from django.conf import settings
from django.core.management import call_command
from django.test import LiveServerTestCase, override_settings


class ShopTest(LiveServerTestCase):
    def setUp(self):
        """The shop serves on a port of its own; its ZimSend is `manage.py zimsend simulate`."""
        database = f"sqlite:///{self.enterContext(tempfile.TemporaryDirectory())}/receiver.db"
        own = settings.ZIMSEND | {"DATABASE_URL": database}
        self.enterContext(override_settings(ZIMSEND=own))
        call_command("zimsend", "migrate")
        port = re.search(r":(\d+)/", own["ZIMSEND_API_URL"])[1]
        hook = f"{self.live_server_url}/sms/webhooks/zimsend"
        command = (
            f"{sys.executable} manage.py zimsend simulate --port {port} --url {hook} --speed 20"
        )
        simulator = self.enterContext(subprocess.Popen(command.split(), stdout=subprocess.PIPE))
        self.addCleanup(simulator.terminate)
        simulator.stdout.readline()  # it listens

    def test_orders_codes_and_what_became_of_their_sms(self):
        order = self.ask("/orders", item="Pain", phone="+33612345678")["order"]
        self.eventually(lambda: self.ask(f"/orders/{order}")["sms"] == "delivered")
        assert self.ask(f"/orders/{order}")["known"]["status"] == "delivered"
        name = self.ask("/codes", phone="+33687654321")["name"]
        told = "/history?to=%2B33687654321&status=delivered"
        (sent,) = self.eventually(lambda: self.ask(told)["data"])
        code = re.search(r"\d{6}", sent["message"])[0]
        for given, right in (("wrong", False), (code, True)):
            assert self.ask(f"/codes/{name}", code=given) == {"right": right}

    def ask(self, path, **fields):
        return (self.client.post(path, fields) if fields else self.client.get(path)).json()

    def eventually(self, condition):
        deadline = time.monotonic() + 30
        while not (result := condition()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return result
