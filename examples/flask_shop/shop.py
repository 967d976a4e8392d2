"""A shop that confirms orders by SMS, checks numbers by a code, and knows what became of each."""

import os
import sqlite3

import httpx
from flask import Blueprint, Flask, abort, current_app, g, request

from receiver import Event
from receiver.flask import ZimSendReceiver

# Handlers run in the processes that serve; with `embedded_worker=False` in `flask zimsend work`.
receiver = ZimSendReceiver(prefix="/sms", embedded_worker=True)
pages = Blueprint("shop", __name__)


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["DATABASE"] = os.environ.get("SHOP_DATABASE", "shop.db")
    app.register_blueprint(pages)
    app.teardown_appcontext(lambda _: g.pop("orders").close() if "orders" in g else None)
    receiver.init_app(app)
    return app


@receiver.on("sms.sent", "sms.delivered", "sms.failed")
def note(event: Event) -> None:
    """The same again changes nothing, and neither does a report that comes after a later one."""
    if "order" in event.metadata and not event.late:
        told = (event.status, event.error_code, event.metadata["order"])
        orders().execute("UPDATE orders SET sms = ?, why = ? WHERE id = ?", told)


@pages.post("/orders")
def place_order() -> dict:
    """The number goes along as metadata: the first report may be here before `send` answers."""
    item, phone = request.form["item"], request.form["phone"]
    placed = orders().execute("INSERT INTO orders (item, phone) VALUES (?, ?)", (item, phone))
    number = placed.lastrowid
    asked = {"to": phone, "message": f"Commande {number} : {item}", "metadata": {"order": number}}
    sent = zimsend("POST", "send", json=asked)
    orders().execute("UPDATE orders SET message_id = ? WHERE id = ?", (sent["message_id"], number))
    return {"order": number}


@pages.get("/orders/<int:number>")
def show_order(number: int) -> dict:
    """The order with what the shop has noted, and all that is known of its SMS."""
    found = orders().execute("SELECT * FROM orders WHERE id = ?", (number,))
    order = dict(found.fetchone() or abort(404))
    return order | {"known": zimsend("GET", f"status/{order['message_id']}")}


@pages.post("/codes")
def send_code() -> dict:
    return {"name": zimsend("POST", "send-otp", json={"to": request.form["phone"]})["otp_id"]}


@pages.post("/codes/<name>")
def check_code(name: str) -> dict:
    checked = zimsend("POST", "verify-otp", json={"otp_id": name, "code": request.form["code"]})
    return {"right": checked["valid"]}


@pages.get("/history")
def history() -> dict:
    return zimsend("GET", "history", params=request.args.to_dict())


def zimsend(method: str, call: str, **what: object) -> dict:
    """A call of ZimSend's API, to the receiver in this process: it passes on what is to be sent."""
    keys = os.environ["ZIMSEND_API_KEY"], os.environ["ZIMSEND_CLIENT_ID"]
    headers = dict(zip(("X-API-Key", "X-Client-ID"), keys, strict=True))
    here = httpx.WSGITransport(app=current_app.wsgi_app)
    with httpx.Client(transport=here, base_url="http://localhost/sms/v1/sms/") as client:
        answer = client.request(method, call, headers=headers, **what)
    if answer.is_error:
        abort(answer.status_code, answer.json()["error"]["message"])
    return dict(answer.json())


def orders() -> sqlite3.Connection:
    """The shop's own database, in a request as well as in a handler."""
    if "orders" not in g:
        g.orders = sqlite3.connect(current_app.config["DATABASE"], isolation_level=None)
        g.orders.row_factory = sqlite3.Row
        columns = "id INTEGER PRIMARY KEY, item, phone, message_id, sms, why"
        g.orders.execute(f"CREATE TABLE IF NOT EXISTS orders ({columns})")
    return g.orders
