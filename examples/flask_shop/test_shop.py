"""The shop's own tests, with a simulated ZimSend: `python -m pytest` in this folder."""

import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from shop import create_app, receiver
from werkzeug.serving import make_server


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A visitor of the shop, which serves on a port of its own beside `flask zimsend simulate`."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    monkeypatch.setenv("ZIMSEND_API_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("ZIMSEND_DATABASE_URL", f"sqlite:///{tmp_path}/receiver.db")
    monkeypatch.setenv("SHOP_DATABASE", f"{tmp_path}/shop.db")
    for name in ("ZIMSEND_WEBHOOK_SECRET", "ZIMSEND_API_KEY", "ZIMSEND_CLIENT_ID"):
        monkeypatch.setenv(name, "of-the-shop-and-long-enough")
    app = create_app()
    assert app.test_cli_runner().invoke(args=["zimsend", "migrate"]).exit_code == 0
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = f"http://127.0.0.1:{server.server_port}/sms/webhooks/zimsend"
    command = f"-m flask --app shop zimsend simulate --port {port} --url {hook} --speed 20 --for 60"
    visitor = app.test_client()
    with subprocess.Popen([sys.executable, *command.split()]) as simulator:
        eventually(
            lambda: "name" in (visitor.post("/codes", data={"phone": "+33600000000"}).json or {})
        )
        yield visitor
        simulator.terminate()
    server.shutdown()
    server.server_close()
    receiver.close()


def eventually(condition, looks=300):
    while not (result := condition()):
        assert (looks := looks - 1)
        time.sleep(0.1)
    return result


def test_orders_codes_and_what_became_of_their_sms(shop):
    order = shop.post("/orders", data={"item": "Pain", "phone": "+33612345678"}).json["order"]
    eventually(lambda: shop.get(f"/orders/{order}").json["sms"] == "delivered")
    assert shop.get(f"/orders/{order}").json["known"]["status"] == "delivered"
    name = shop.post("/codes", data={"phone": "+33687654321"}).json["name"]
    (sent,) = eventually(
        lambda: shop.get("/history?to=%2B33687654321&status=delivered").json["data"]
    )
    code = re.search(r"\d{6}", sent["message"])[0]
    for given, right in (("wrong", False), (code, True)):
        assert shop.post(f"/codes/{name}", data={"code": given}).json == {"right": right}
