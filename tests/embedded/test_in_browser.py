"""The dashboard below a prefix of a Flask host, in a real browser: nothing leads outside of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from playwright.sync_api import Browser, sync_playwright
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server

from receiver.flask import ZimSendReceiver
from receiver.parts import parts
from receiver.providers.zimsend.webhook import sign
from tests.embedded.conftest import SECRET, SETTINGS
from tests.payloads import body_of
from tests.server import cannot_run
from tests.web.dashboard.browser import CHROMIUM, PATIENCE, Watch
from tests.web.dashboard.every_page import GROUP, SEEN
from tests.web.dashboard.world import fill

PASSWORD = "horse battery staple"


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any, **__: Any) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        cannot_run("there is no Chromium, so no page below a prefix was seen in a browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard's address in a host that lies below a path itself; by password, and open."""
    app = Flask("shop", root_path=str(tmp_path_factory.mktemp("shop")))
    settings = SETTINGS | {"ADMIN_PASSWORD": PASSWORD, "SECRET_KEY": "k" * 32}
    receiver = ZimSendReceiver(settings=settings)
    receiver.on("*", name="first")(lambda event: None)
    receiver.on("sms.*", name="second")(lambda event: None)
    embedded = receiver.init_app(app)
    own = parts(embedded.application)
    own.store.migrate()
    fill(own, days=2, hostile=True)
    opened = ZimSendReceiver(app, prefix="/open", name="open", settings=settings, authorize=_staff)
    opened.registry.on("sms.*", name="second")(lambda event: None)
    both = DispatcherMiddleware(Flask("nothing"), {"/shop": app})
    server = make_server("127.0.0.1", 0, both, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/shop"
    server.shutdown()
    server.server_close()
    thread.join()
    for each in app.extensions["zimsend_receivers"].values():
        each.close()


def _staff() -> bool:
    return True


def test_every_page_and_all_that_it_does_stays_below_the_prefix(
    browser: Browser, shop: str
) -> None:
    context = browser.new_context(locale="en")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    watch = Watch(page, f"{shop}/sms/")
    page.goto(f"{shop}/sms/messages?status=failed")
    page.locator("#password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/shop/sms/messages?status=failed")
    for path in SEEN:
        answer = page.goto(f"{shop}/sms{path}")
        assert answer is not None
        assert answer.status == 200, path
    page.get_by_role("link", name="Français").click()
    page.get_by_role("link", name="English").click()

    page.clock.install()
    page.goto(f"{shop}/sms/live")
    body = body_of("otp.sent", {"to": "+33612345678"}, event_id="evt_live")
    signed = {"X-Webhook-Signature": sign(SECRET.encode(), body)}
    hook = f"{shop}/sms/webhooks/zimsend"
    assert context.request.post(hook, data=body, headers=signed).status == 200
    page.clock.run_for(2_000)
    page.get_by_text("evt_live").wait_for()

    page.goto(f"{shop}/sms/failures/group?{urlencode(GROUP)}")
    page.locator("form button.primary, form.act button").first.click()
    page.get_by_role("status").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/shop/sms/sign-in")
    assert watch.told == []
    context.close()


def test_who_is_let_in_by_the_host_signs_in_nowhere(browser: Browser, shop: str) -> None:
    context = browser.new_context(locale="en")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    watch = Watch(page, f"{shop}/open/")
    page.goto(f"{shop}/open/quarantine")
    page.locator("form button.primary").click()
    page.get_by_role("status").wait_for()
    assert page.get_by_role("button", name="Sign out").count() == 0
    page.get_by_role("navigation").first.get_by_role("link", name="Settings").click()
    assert watch.told == []
    context.close()
